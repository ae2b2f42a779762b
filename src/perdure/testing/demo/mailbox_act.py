"""The second act: a mailbox database of Exchange's engine, simulated, under load; lost, and brought back to a second.

The store is a process of its own that perdure knows only by its files and its writer. What comes back is replayed to a
clean shutdown without the engine, verified page by page, compared row by row with the store's own journal, and opened
by two readers that share no code with perdure.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time_ns

from perdure.ese.structures import LogPosition
from perdure.model.moments import moment_text, rfc3339
from perdure.model.positions import Position
from perdure.testing.demo.answers import PointAnswer, full_points, nanoseconds, point
from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.mailbox_readers import Read, independent_readers
from perdure.testing.demo.program import Program, new_program
from perdure.testing.demo.showing import Show
from perdure.testing.demo.store_process import StoreProcess
from perdure.testing.demo.watching import Watch
from perdure.testing.information_store.journal import Journal

__all__ = ["MailboxOutcome", "MailboxPlan", "play_mailboxes"]

NAME = "mailboxes"
_MIB = 1 << 20
_JOURNAL_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class MailboxPlan:
    """How large and how long.

    Args:
        folder: Everything happens in here.
        seed: Decides what the clients do, and the second that is recovered.
        size: Bytes in the database at first, at least.
        seconds: How long the load runs while it is protected, at least.
        rate: Transactions per second.
        express_fulls: Express fulls that must come about meanwhile.
        express_full_every: Seconds between them.
    """

    folder: Path
    seed: int
    size: int = 300 * _MIB
    seconds: float = 25.0
    rate: float = 60.0
    express_fulls: int = 2
    express_full_every: float = 8.0


@dataclass(frozen=True, slots=True)
class MailboxOutcome:
    """What there is to report when every check has passed.

    Args:
        plan: As planned.
        first: The first replica's point.
        first_seconds: The whole ``perdure protect`` command.
        fulls: The express fulls that watch made.
        logs: Log generations shipped by watch.
        truncated: Log generations that the engine deleted after it heard that they are durable.
        wanted_ns: The moment that was asked for.
        position: The place that it turned out to be.
        recover_seconds: The whole ``perdure recover --clean`` command.
        pages: Pages verified in what was recovered.
        rows: Rows compared with the journal.
        commits: Transactions that the journal has up to there.
        readers: What each independent reader read.
        pool_size: Bytes of the pool at the end.
    """

    plan: MailboxPlan
    first: PointAnswer
    first_seconds: float
    fulls: list[PointAnswer]
    logs: int
    truncated: int
    wanted_ns: int
    position: Position
    recover_seconds: float
    pages: int
    rows: int
    commits: int
    readers: list[Read]
    pool_size: int


def play_mailboxes(plan: MailboxPlan, show: Show) -> MailboxOutcome:
    """Run the act to its end.

    Raises:
        DemoFailed: A check or a command failed.
    """
    store, pool = plan.folder / "store", plan.folder / "mailbox-pool"
    program = new_program(plan.folder)
    with show.working(f"an information store is filled with mailboxes of {plan.size // _MIB} MiB"):
        process = StoreProcess.start(store, plan.size, plan.rate, plan.seed, plan.folder / "store.output")
    with process:
        show.say(f"its clients are at work, {plan.rate:.0f} transactions a second")
        program.run("pool", "create", pool)
        with show.working("perdure protect: prepare, freeze, snapshot, thaw, and the first replica"):
            protected = program.run("protect", f"exchange:{store}", "--pool", pool, "--as", NAME)
        first = point(protected.document["point"], protected.seconds)
        every = f"{plan.express_full_every:g}s"
        with Watch(program, NAME, "--express-full-every", every) as watch:
            steady_ns = time_ns()
            with show.counting("perdure watch: shipping every log as it is closed", plan.seconds) as tick:
                _let_it_run(plan, watch, process, tick)
            watch.stop()
        fulls = full_points(watch.events)
        show.say(f"{len(fulls)} express fulls made; perdure watch stopped, everything acknowledged is durable")
        truncation = program.run("exchange", "truncation", NAME).document
        process.kill()
    journal = _lose_the_store(process, plan.folder, show)
    until_ns = _last_durable(program)
    wanted_ns = random.Random(plan.seed).randrange(steady_ns, max(steady_ns + 1, until_ns))  # noqa: S311
    target = plan.folder / "recovered-mailboxes"
    with show.working(f"perdure recover --to {moment_text(wanted_ns)[11:23]} --clean: image, logs, replay, undo"):
        answer = program.run("recover", NAME, "--to", rfc3339(wanted_ns), "--target", target, "--clean")
    position = Position.parse(answer.document["position"])
    (database,) = target.glob("*.edb")
    with show.working("perdure ese verify: every page and every tree"):
        verified = program.run("ese", "verify", database, "--trees").document
    rows, commits = _compare(journal, database, position, wanted_ns)
    show.say(f"  all {rows:,} rows are those of the journal at {position}", style="green")
    with show.working("libesedb and dissect read the recovered database"):
        readers = independent_readers(database, journal.rows_at(_place(position)))
    for reader in readers:
        show.say(f"  {reader.name}: {reader.rows:,} rows in {reader.tables} tables, as in the journal", style="green")
    return MailboxOutcome(
        plan,
        first,
        protected.seconds,
        fulls,
        _logs(watch),
        _truncated(truncation),
        wanted_ns,
        position,
        answer.seconds,
        sum(one["pages"] for one in verified["databases"]),
        rows,
        commits,
        readers,
        sum(path.stat().st_size for path in pool.rglob("*") if path.is_file()),
    )


def _let_it_run(plan: MailboxPlan, watch: Watch, process: StoreProcess, tick: object) -> None:
    assert callable(tick)
    begun = seen = monotonic()
    deadline = begun + plan.seconds + _JOURNAL_WAIT_S
    while seen < begun + plan.seconds or len(full_points(watch.events)) < plan.express_fulls:
        sleep(0.1)
        watch.must_be_running()
        process.must_be_running()
        now = monotonic()
        tick(now - seen)
        seen = now
        if now > deadline:
            raise DemoFailed(f"watch made only {len(full_points(watch.events))} of {plan.express_fulls} express fulls")


def _lose_the_store(process: StoreProcess, folder: Path, show: Show) -> Journal:
    """The store's process is dead and its disks are gone; only its journal, which perdure never saw, is kept."""
    kept = folder / "journal"
    shutil.copyfile(process.journal, kept)
    shutil.rmtree(process.folder)
    show.say("the store is killed, and its database and all its logs are gone", style="bold red")
    return Journal.load(kept)


def _last_durable(program: Program) -> int:
    """The last moment that the pool can recover, nanoseconds since 1970 UTC."""
    rows = program.run("points", NAME, "--commits").document["points"]
    return max(nanoseconds(row["time"]) for row in rows)


def _place(position: Position) -> LogPosition:
    return LogPosition(position.generation, position.place >> 16, position.place & 0xFFFF)


def _compare(journal: Journal, database: Path, position: Position, wanted_ns: int) -> tuple[int, int]:
    """Check every row, and that nothing later than the moment is shown."""
    place = _place(position)
    differences = journal.compare(database, place)
    if differences:
        shown = "\n  ".join(differences[:10])
        raise DemoFailed(f"the recovered database at {position} differs from the journal:\n  {shown}")
    shown_commits = [commit for commit in journal.commits if commit.position < place]
    late = [commit for commit in shown_commits if commit.moment * 1e9 > wanted_ns]
    if late:
        raise DemoFailed(f"{len(late)} transactions of after {moment_text(wanted_ns)} are in what was recovered")
    return sum(len(table) for table in journal.rows_at(place).values()), len(shown_commits)


def _logs(watch: Watch) -> int:
    positions = [Position.parse(event["position"]) for event in watch.events if event.get("position")]
    generations = {position.generation for position in positions}
    return max(generations) - min(generations) + 1 if generations else 0


def _truncated(document: dict[str, object]) -> int:
    events = document["events"]
    assert isinstance(events, list)
    return sum(event["truncated"][1] - event["truncated"][0] + 1 for event in events if event["truncated"])
