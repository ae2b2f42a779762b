"""Random work on a real database, protected by the real workload into a real pool: every place recovers exactly."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from perdure.model.errors import TrackingLost
from perdure.model.logs import LogSegment, LogSpan
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import AtPoint, AtPosition, AtTime, Latest, Target
from perdure.protection.home import Home
from perdure.protection.image_verbs import check, express_full, protect, synchronize
from perdure.protection.live import LiveSource
from perdure.protection.live_session import open_session
from perdure.protection.points import timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.repository import keys
from perdure.repository.keys import Passphrase
from perdure.repository.opening import create_pool, open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.local import LocalStorage
from perdure.testing.counted_database import (
    Change,
    CountedDatabase,
    Create,
    Delete,
    Drop,
    Index,
    Insert,
    Update,
    read_counter,
)
from perdure.testing.eager_sqlite import EagerSqliteWorkload
from perdure.testing.sqlite_writer import SqliteWriter
from perdure.workloads.sqlite import chain, recycling

pytestmark = pytest.mark.slow

WORDS = st.integers(0, 16**7 - 1)
TIMES = st.integers(1, 60) | st.integers(1, 1500) | st.just(40_000)
NUMBERS = st.integers(0, 30)
TRANSACTION = st.lists(
    st.one_of(
        st.builds(Insert, NUMBERS, WORDS, TIMES),
        st.builds(Insert, NUMBERS, WORDS, TIMES),
        st.builds(Update, NUMBERS, NUMBERS, WORDS, TIMES),
        st.builds(Delete, NUMBERS, NUMBERS, st.integers(1, 4)),
        st.builds(Create),
        st.builds(Drop, NUMBERS),
        st.builds(Index, NUMBERS, st.booleans()),
    ),
    max_size=5,
)


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """Guessing is cheap, a blocked checkpoint is tried again at once, and file times settle after five clock ticks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_SCRYPT", (1 << 4, 8, 1))
        patch.setattr(recycling, "_FIRST_DELAY_NS", 0)
        patch.setattr(chain, "_SETTLED_NS", 20_000_000)
        yield


class RealSqlite(RuleBasedStateMachine):
    """The model is the database's history and, for every position in the pool, which commit it must show.

    Whenever a verb has brought the pool up to date, the marks that it shipped are counted off against the commits that
    the writer made: each commit must be there exactly once, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="perdure-machine-"))
        self.stack = contextlib.ExitStack()
        self.live: LiveSource | None = None
        self.second: SqliteWriter | None = None
        self.places: dict[Position, int] = {}
        self.numbers: dict[int, int] = {}
        self.segments: list[tuple[Position, list[Position]]] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.may_be_lost = False
        self.recoveries = 0

    def teardown(self) -> None:
        try:
            if hasattr(self, "pool"):
                rows = timeline_rows(self.pool, self.protected.source.id, commits=True)
                assert {row.position for row in rows} == set(self.places)
                self.stack.close()
                assert verify_pool(self.pool, data=True).damage == ()
        finally:
            self.stack.close()
            if self.second is not None:
                self.second.kill()
            if hasattr(self, "database"):
                self.database.close()
            shutil.rmtree(self.root)

    @initialize(page_size=st.sampled_from([512, 1024, 4096, 8192]), changes=TRANSACTION)
    def begin(self, page_size: int, changes: list[Change]) -> None:
        self.database = CountedDatabase(self.root / "live.db", page_size)
        self.database.commit(changes)
        self.home = Home(self.root / "home")
        storage = LocalStorage(self.root / "pool", create=True)
        self.use(create_pool(storage, b"secret", self.home.cache_dir("first"))[0])
        workload = EagerSqliteWorkload()
        location = str(self.database.path)
        self.protected, point = protect(self.home, self.pool, "sqlite", location, name="live", workload=workload)
        assert point.position is not None
        self.places[point.position] = self.durable = len(self.database.history) - 1
        self.numbers[point.number] = self.durable
        self.end = point.position
        self.segments.clear()
        self.first_ns = time.time_ns()
        self.acknowledged.append((self.first_ns, self.durable))

    # --- the application ---------------------------------------------------------------------------

    @rule(transactions=st.lists(TRANSACTION, min_size=1, max_size=4))
    def commit(self, transactions: list[list[Change]]) -> None:
        for changes in transactions:
            self.database.commit(changes)

    @rule(changes=TRANSACTION, word=WORDS)
    def roll_back(self, changes: list[Change], word: int) -> None:
        self.database.roll_back([*changes, Insert(0, word, 30_000)])

    @rule(mode=st.sampled_from(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]))
    def checkpoint(self, mode: str) -> None:
        self.may_be_lost = True
        self.database.checkpoint(mode)

    @precondition(lambda self: self.second is None)
    @rule()
    def vacuum(self) -> None:
        self.database.vacuum()

    @precondition(lambda self: self.second is None)
    @rule(reading=st.booleans())
    def second_writer_comes(self, reading: bool) -> None:
        self.second = SqliteWriter(self.database.path)
        if reading:
            self.second.run("BEGIN", "SELECT count(*) FROM counter")

    @precondition(lambda self: self.second is not None)
    @rule()
    def second_writer_goes(self) -> None:
        assert self.second is not None
        self.second.close()
        self.second = None

    @rule(kill=st.booleans())
    def writer_restarts(self, kill: bool) -> None:
        self.may_be_lost = True
        self.database.restart_writer(kill=kill)

    # --- perdure -----------------------------------------------------------------------------------

    @precondition(lambda self: self.live is None)
    @rule()
    def perdure_comes(self) -> None:
        self.live = self.stack.enter_context(open_session(self.protected, "watch"))
        if self.live.must_compare:
            self.live.express_full("first replica")
            self.count_off()

    @precondition(lambda self: self.live is not None)
    @rule()
    def perdure_goes(self) -> None:
        self.stack.close()
        self.live = None

    @precondition(lambda self: self.live is not None)
    @rule()
    def ship(self) -> None:
        self.at_work(LiveSource.ship)
        self.count_off()

    @precondition(lambda self: self.live is not None)
    @rule()
    def poll(self) -> None:
        self.at_work(lambda live: live.session.poll())

    @precondition(lambda self: self.live is not None)
    @rule(before=st.booleans())
    def maintain(self, before: bool) -> None:
        self.may_be_lost = True
        if before:
            self.at_work(LiveSource.ship)
        self.at_work(LiveSource.maintain)
        self.count_off(everything=before)

    @rule(verb=st.sampled_from(["synchronize", "express full", "check"]))
    def verb(self, verb: str) -> None:
        self.run(verb)
        self.count_off()

    @rule(
        verb=st.sampled_from(["synchronize", "express full", "check"]),
        transactions=st.lists(TRANSACTION, min_size=1, max_size=6),
    )
    def verb_while_writing(self, verb: str, transactions: list[list[Change]]) -> None:
        self.database.writer.begin(*(line for changes in transactions for line in self.database.planned(changes)))
        try:
            self.run(verb)
        finally:
            self.database.writer.finish()
        self.run("synchronize")
        self.count_off()

    @precondition(lambda self: self.live is None)
    @rule(forgetful=st.booleans())
    def perdure_moves(self, forgetful: bool) -> None:
        """Perdure starts anew, with its caches or on a machine that knows the pool only."""
        self.pool.close()
        if forgetful:
            shutil.rmtree(self.home.root)
        self.home = Home(self.root / "home")
        cache = self.home.cache_dir("again")
        self.use(open_pool(LocalStorage(self.root / "pool"), Passphrase(b"secret"), cache))
        (source,) = self.pool.sources()
        self.home.remember_source(source, self.pool.id)
        self.protected = Protected(self.home, self.pool, source, self.protected.workload)

    # --- recovery ----------------------------------------------------------------------------------

    @rule()
    def recover_latest(self) -> None:
        assert self.recovered(Latest(), self.durable) == self.database.history[self.durable].counter

    @rule(pick=st.integers(0, 10**6))
    def recover_position(self, pick: int) -> None:
        position = sorted(self.places)[pick % len(self.places)]
        self.recovered(AtPosition(position), self.places[position])

    @rule(pick=st.integers(0, 10**6))
    def recover_point(self, pick: int) -> None:
        number = sorted(self.numbers)[pick % len(self.numbers)]
        self.recovered(AtPoint(number), self.numbers[number])

    @rule(share=st.floats(0, 1))
    def recover_time(self, share: float) -> None:
        now = time.time_ns()
        moment = self.first_ns + int(share * (now - self.first_ns))
        counter = self.recovered(AtTime(moment), None)
        history = self.database.history
        assert counter >= max(history[index].counter for done, index in self.acknowledged if done <= moment)
        assert counter <= max(each.counter for each in history if each.begun_ns <= moment)

    # --- the model ---------------------------------------------------------------------------------

    def use(self, pool: Pool) -> None:
        """Go on with a pool, and note every mark that becomes durable in it."""
        append = pool.append

        def noting(source: str, segment: LogSegment) -> LogSpan:
            span = append(source, segment)
            places = segment.marks["place"].tolist()
            self.segments.append((segment.after, [Position(segment.last.generation, place) for place in places]))
            return span

        pool.append = noting  # type: ignore[method-assign]
        self.pool = pool

    def at_work(self, work: Callable[[LiveSource], Any]) -> Any:
        """Let the open session work; when its tracking is lost, open the source anew as ``watch`` does.

        It may be lost when log that was not shipped yet had been checkpointed before the session began.
        """
        assert self.live is not None
        try:
            return work(self.live)
        except TrackingLost as lost:
            if not self.may_be_lost:
                raise
            self.perdure_goes()
            self.live = self.stack.enter_context(open_session(self.protected, "watch"))
            self.live.lose(lost.message)
            self.live.express_full("on request")
            return None

    def run(self, verb: str) -> None:
        if verb == "synchronize":
            _ = self.at_work(LiveSource.ship) if self.live is not None else synchronize(self.protected)
        elif verb == "express full":
            _ = (
                self.at_work(lambda live: live.express_full("on request"))
                if self.live is not None
                else express_full(self.protected)
            )
        elif self.live is not None:
            report = self.at_work(LiveSource.check)
            pages = sum(len(found.pages) for found in report.found.values()) if report is not None else 0
            assert not pages, "the replica differed although nothing was lost"
        else:
            pages = check(self.protected).pages
            assert self.may_be_lost or not pages, "the replica differed although nothing was lost"

    def count_off(self, *, everything: bool = True) -> None:
        """Join every new position in the pool to the commit that it must show."""
        segments, self.segments = self.segments, []
        images = [p for p in self.pool.points(self.protected.source.id) if p.number not in self.numbers]
        last = len(self.database.history) - 1
        self.follow(segments)
        for image in images:
            if image.position not in self.places:
                assert self.may_be_lost, f"tracking was lost without cause: {image.cause}"
                self.start_again(image)
                self.follow(segments)
        assert not segments, f"log from {segments[0][0]} does not continue {self.end}"
        for image in images:
            assert image.position is not None
            self.numbers[image.number] = self.places[image.position]
        if everything:
            assert self.durable == last, f"the pool has {self.durable} of {last} commits"
        self.acknowledged.append((time.time_ns(), self.durable))

    def follow(self, segments: list[tuple[Position, list[Position]]]) -> None:
        """Count off the marks of those segments that continue the log."""
        while segments and segments[0][0] == self.end:
            _, positions = segments.pop(0)
            for position in positions:
                self.durable += 1
                self.places[position] = self.durable
            self.end = positions[-1]

    def start_again(self, image: RecoveryPoint) -> None:
        """After a loss of tracking the image itself says which commit it shows; it is not older than what was there."""
        counter = self.recovered(AtPoint(image.number), None)
        index = max(index for index, each in enumerate(self.database.history) if each.counter == counter)
        assert index >= self.durable
        assert image.position is not None
        self.places[image.position] = self.durable = index
        self.end = image.position

    def recovered(self, to: Target, index: int | None) -> int:
        """Recover, compare with the commit ``index``, or else with the commit that the copy says it shows."""
        self.recoveries += 1
        target = self.root / f"recovered-{self.recoveries}"
        recover(self.protected, to=to, target=target, verify="none")
        counter = read_counter(target)
        history = self.database.history
        moment = next(each for each in history if each.counter == counter) if index is None else history[index]
        assert self.database.differences(target, moment) == []
        target.unlink()
        return counter


RealSqlite.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    derandomize=False,
    # Shrinking steps as slow as these would take longer than the test may; the blob repeats a failure.
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestRealSqlite = RealSqlite.TestCase
