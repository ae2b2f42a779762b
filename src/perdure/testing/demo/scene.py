"""The demo's course: protect a live mail store, ruin it, bring back four moments of it."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Any

from perdure.testing.demo.answers import LOG, PointAnswer, commits, full_points, point, shipments
from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.lag import Lag, Line, measure
from perdure.testing.demo.program import Program, new_program
from perdure.testing.demo.recovering import Recovered, Wanted, recover
from perdure.testing.demo.showing import Show
from perdure.testing.demo.watching import Watch
from perdure.testing.mailstore import Commit, Ledger, fill, make_mistake, start_writer, stop_writer

__all__ = ["Outcome", "Plan", "play"]

NAME = "mail"
STORE = "mail.db"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How large and how long.

    Args:
        folder: Everything happens in here.
        seed: Decides the random moments and what the writers do.
        size: Bytes in the mail store at first, at least.
        seconds: How long the load runs while it is protected continuously.
        writers: Writer processes.
        rate: Commits per second of every writer.
        express_full_every: Seconds between express fulls.
    """

    folder: Path
    seed: int
    size: int = 300 * _MIB
    seconds: float = 40.0
    writers: int = 4
    rate: float = 20.0
    express_full_every: float = 12.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there is to report when every check has passed.

    Args:
        plan: As planned.
        ledger: What the writers did.
        source_size: Bytes of the database when the first replica was made.
        first: The first replica's point.
        first_seconds: The whole ``perdure protect`` command.
        fulls: The express fulls that watch made.
        commits_logged: Recoverable moments in the timeline since the log was last unbroken.
        lag_under_load: From COMMIT to durable, until the mistake.
        lag: The same for the whole run; the mistake itself is a transaction as large as the database.
        recovered: The recoveries.
        pool_size: Bytes of the pool at the end.
        verified: What ``perdure verify --data`` said.
        seconds: The whole demo.
    """

    plan: Plan
    ledger: Ledger
    source_size: int
    first: PointAnswer
    first_seconds: float
    fulls: list[PointAnswer]
    commits_logged: int
    lag_under_load: Lag
    lag: Lag
    recovered: list[Recovered]
    pool_size: int
    verified: dict[str, Any]
    seconds: float


def play(plan: Plan, show: Show) -> Outcome:
    """Run the demo to its end.

    Raises:
        DemoFailed: A check or a command failed.
    """
    begun = monotonic()
    database, book, pool = plan.folder / STORE, plan.folder / "ledger", plan.folder / "pool"
    program = _prepared(plan, show, database, book, pool)
    writers = [
        start_writer(database, book, f"writer-{i}", seed=plan.seed * 100 + i, rate=plan.rate)
        for i in range(plan.writers)
    ]
    with _ending(writers):
        show.say(f"{plan.writers} writer processes are at work, {plan.rate * plan.writers:.0f} commits a second")
        size = database.stat().st_size
        with show.working("perdure protect: making the replica while they write"):
            protected = program.run("protect", f"sqlite:{database}", "--pool", pool, "--as", NAME)
        first = point(protected.document["point"], protected.seconds)
        with Watch(program, NAME, "--express-full-every", f"{plan.express_full_every:g}s") as watch:
            steady_ns = _under_load(plan, show, watch, writers, book)
            show.say("someone runs DELETE FROM messages, and forgets the WHERE", style="bold red")
            with show.working("DELETE FROM messages"):
                make_mistake(database, book)
            with show.counting("the writers go on, nobody has noticed yet", 3.0) as tick:
                _pass_time(3.0, tick, lambda: _all_at_work(watch, writers))
            watch.stop()
        show.say("perdure watch stopped on SIGTERM, everything acknowledged is durable")
        for writer in writers:
            stop_writer(writer)
    ledger = Ledger.load(book)
    _overwrite_with_noise(database, show)
    places = commits(program.run("points", NAME, "--commits").document)
    recovered = _recover_all(plan, show, program, ledger, steady_ns)
    line = Line(places, recovered[0].anchor)
    line.must_pass_through(copy.anchor for copy in recovered)
    shipped = shipments(watch.events)
    lag = measure(line, ledger, shipped, steady_ns)
    lag_under_load = measure(line, ledger, shipped, steady_ns, _mistake(ledger).before_ns)
    with show.working("perdure verify --data: re-reading the whole pool"):
        verified = program.run("verify", pool, "--data").document
    return Outcome(
        plan,
        ledger,
        size,
        first,
        protected.seconds,
        full_points(watch.events),
        len(places),
        lag_under_load,
        lag,
        recovered,
        _size_of(pool),
        verified,
        monotonic() - begun,
    )


def _prepared(plan: Plan, show: Show, database: Path, book: Path, pool: Path) -> Program:
    """A filled mail store and an empty pool."""
    program = new_program(plan.folder)
    with show.measuring(f"filling a mail store of {plan.size // _MIB} MiB", plan.size) as tick:
        fill(database, book, size=plan.size, seed=plan.seed, progress=tick)
    with show.working("perdure pool create"):
        program.run("pool", "create", pool)
    return program


def _under_load(plan: Plan, show: Show, watch: Watch, writers: list[subprocess.Popen[bytes]], book: Path) -> int:
    """Let it run; returns the moment from which watch was shipping continuously."""
    with show.working("perdure watch: catching up with the log"):
        watch.wait_for(LOG, 60.0)
    steady_ns = time_ns()
    with show.counting("perdure watch: shipping the log as it is written", plan.seconds) as tick:
        _pass_time(plan.seconds, tick, lambda: _all_at_work(watch, writers))
    made = Ledger.load(book, live=True).last
    show.say(f"{made:,} transactions committed, {len(full_points(watch.events))} express fulls made")
    return steady_ns


def _recover_all(plan: Plan, show: Show, program: Program, ledger: Ledger, steady_ns: int) -> list[Recovered]:
    mistake = _mistake(ledger)
    chance = random.Random(plan.seed)  # noqa: S311 (which moments to try, not a secret)
    # Nobody else could commit while the mistake was being made, so exactly one state is right.
    wanted = [Wanted.at_time("before the mistake", mistake.before_ns - 1, mistake.n - 1)]
    show.say(f"recovering; random moments come from seed {plan.seed}")
    for number in (1, 2):
        moment = chance.randrange(steady_ns, mistake.before_ns)
        wanted.append(Wanted.at_time(f"random {number}, by time", moment))
    targets = iter([plan.folder / f"recovered-{number}.db" for number in range(1, 5)])
    recovered = [_recover_one(show, program, aim, next(targets), ledger) for aim in wanted]
    line = Line(commits(program.run("points", NAME, "--commits").document), recovered[0].anchor)
    inside = [(n, place) for n, place in line.numbered() if n < mistake.n]
    n, place = chance.choice(inside)
    aim = Wanted("random 3, by position", str(place.position), str(place.position), n=n)
    recovered.append(_recover_one(show, program, aim, next(targets), ledger))
    return recovered


def _mistake(ledger: Ledger) -> Commit:
    (mistake,) = (commit for commit in ledger.commits if commit.writer == "mistake")
    return mistake


def _recover_one(show: Show, program: Program, wanted: Wanted, target: Path, ledger: Ledger) -> Recovered:
    with show.working(f"perdure recover --to {wanted.to}"):
        copy = recover(program, NAME, wanted, target, ledger)
    show.say(f"  {wanted.title}: commit {copy.anchor.n:,}, all {copy.rows:,} rows are right", style="green")
    return copy


def _overwrite_with_noise(database: Path, show: Show) -> None:
    size = database.stat().st_size
    with show.measuring("the database file is overwritten with noise", size) as tick, database.open("r+b") as file:
        for offset in range(0, size, _MIB):
            file.write(os.urandom(min(_MIB, size - offset)))
            tick(min(_MIB, size - offset))
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    show.say("the database file is noise now, its -wal and -shm are gone", style="bold red")


def _pass_time(seconds: float, tick: Callable[[float], None], check: Callable[[], None]) -> None:
    begun = seen = monotonic()
    while seen < begun + seconds:
        sleep(0.1)
        check()
        now = monotonic()
        tick(now - seen)
        seen = now


def _all_at_work(watch: Watch, writers: list[subprocess.Popen[bytes]]) -> None:
    watch.must_be_running()
    for writer in writers:
        if writer.poll() is not None:
            raise DemoFailed(f"a writer ended by itself with status {writer.returncode}; its database is in doubt")


@contextmanager
def _ending(writers: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """No writer outlives the demo, whatever happens."""
    try:
        yield
    finally:
        for writer in writers:
            if writer.poll() is None:
                writer.kill()
                writer.wait()


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
