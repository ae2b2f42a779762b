"""Random programs of a small store: any image, recovered to any commit or segment, holds the rows of the model there.

A fixed selection runs with the other tests. ``PERDURE_ESE_PROGRAMS=5000`` runs so many random programs for each page
size instead, with new seeds each time. A failure prints the smallest program that shows it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from perdure.ese.database import Database
from perdure.ese.logs.files import read_logs
from perdure.ese.replay.errors import ReplayRefused
from perdure.ese.replay.replaying import replay
from perdure.ese.replay.stops import END_OF_LOGS, StopAt
from perdure.testing.information_store.journal import differences, read_rows
from perdure.testing.information_store.log_stream import log_position
from perdure.testing.information_store.program_store import (
    Captured,
    Operation,
    ProgramBase,
    ProgramStore,
    program_base,
)

EXAMPLES = int(os.environ.get("PERDURE_ESE_PROGRAMS", "0"))
MEMORY_FILES = Path("/dev/shm")
SMALLEST = 1
"""Memory for the fewest pages that a replay can work with: pages are written and read again all the time."""

END = 1 << 62
"""A place behind every log."""

WORK = (
    *("insert", "insert", "insert", "update", "update", "update", "body", "body", "delete", "delete"),
    *("begin", "commit", "commit", "commit", "rollback", "flush", "flush", "durable", "maintain", "maintain"),
    *("checkpoint", "roll", "capture", "write", "crash", "remount", "reattach"),
)

OPERATIONS = st.lists(
    st.builds(Operation, st.sampled_from(WORK), st.integers(0, 2), st.integers(0, 9), st.integers(0, 199)),
    min_size=8,
    max_size=60,
)
GOALS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(("commit", "segment", "alone")), st.integers(0, 99)),
    min_size=1,
    max_size=2,
)
"""From which image, to what kind of position, and to which of them."""


@pytest.fixture(scope="module", params=[4096, 32768])
def base(request: pytest.FixtureRequest) -> Iterator[ProgramBase]:
    """The files that every program begins with."""
    with tempfile.TemporaryDirectory(dir=MEMORY_FILES if MEMORY_FILES.is_dir() else None) as name:
        yield program_base(Path(name), request.param)


def check(store: ProgramStore, image: Captured, logs: Path, place: int | None, expected: int) -> None:
    """Recover an image to a place, or to the end of its logs: the rows are the model's, or it is refused as too new."""
    output = store.folder / "recovered.edb"
    output.unlink(missing_ok=True)
    stop = END_OF_LOGS if place is None else StopAt(log_position(place))
    note(f"{image.image.parent.name} of {log_position(image.place)} to {stop}")
    if place is not None and place < image.place:
        # It may hold what lies behind; if it does, that must be seen.
        with suppress(ReplayRefused):
            replay([logs], output, database=image.image, stop=stop, memory=SMALLEST)
            assert differences(store.rows_at(expected), read_rows(output)) == []
        return
    report = replay([logs], output, database=image.image, stop=stop, memory=SMALLEST)
    told = [str(finding) for finding in report.findings if finding.code != "ese-replay-unfinished"]
    assert told == []
    assert differences(store.rows_at(expected), read_rows(output)) == []


@settings(
    max_examples=EXAMPLES or 110,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    phases=[Phase.explicit, Phase.generate, *((Phase.shrink,) if EXAMPLES else ())],
    suppress_health_check=list(HealthCheck),
)
@given(program=OPERATIONS, goals=GOALS, seed=st.integers(0, 1 << 16), power=st.booleans())
def test_any_program_recovers_to_any_commit(
    base: ProgramBase, program: list[Operation], goals: list[tuple[int, str, int]], seed: int, power: bool
) -> None:
    """Whatever sessions do, whatever is flushed, crashes or is copied: a recovery holds the rows committed then."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY_FILES if MEMORY_FILES.is_dir() else None))
    try:
        store = ProgramStore(folder, base, seed, power)
        for operation in program:
            store.perform(operation)
        end = store.end()
        check(store, end, end.logs, None, END)
        for which, kind, number in goals:
            images = [store.begun, *store.captured]
            image = images[which % len(images)]
            if kind == "alone":
                # The logs that were captured with it are enough for what was durable then.
                check(store, image, image.logs, None, image.place)
            elif store.commits:
                place = store.commits[number % len(store.commits)]
                place = place if kind == "commit" else place >> 16 << 16
                check(store, image, end.logs, place, place)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def store(base: ProgramBase) -> Iterator[ProgramStore]:
    """A small store that goes its own way."""
    with tempfile.TemporaryDirectory(dir=MEMORY_FILES if MEMORY_FILES.is_dir() else None) as name:
        yield ProgramStore(Path(name), base)


def work(store: ProgramStore, *kinds: str) -> None:
    """Do operations, each about a row of its own."""
    for number, kind in enumerate(kinds):
        store.perform(Operation(kind, row=number, size=7))


def refused(store: ProgramStore, image: Path, logs: Path, stop: StopAt) -> str:
    """The code of the error with which a replay is refused."""
    with pytest.raises(ReplayRefused) as raised:
        replay([logs], store.folder / "refused.edb", database=image, stop=stop)
    return raised.value.code


def test_a_transaction_across_logs_is_taken_back_from_a_clean_image(store: ProgramStore) -> None:
    """Replay onto a clean image takes back all of a transaction that began in an earlier log than it ends in."""
    work(store, "insert", "durable", "roll", "insert", "durable")
    end = store.end()
    report = replay([end.logs], store.folder / "clean.edb", database=store.begun.image)
    assert [report.generations, len(report.open_transactions)] == [(1, 3), 1]
    assert read_rows(report.output) == {}


def test_a_position_before_the_logs_of_an_image(store: ProgramStore) -> None:
    """What lies before the first log that an image needs is in it, so no such place and time is reached."""
    work(store, "insert", "commit", "crash", "insert", "commit", "write", "capture")
    place, image = store.commits[0], store.captured[0]
    end = store.end()
    stop = StopAt(log_position(place))
    assert replay([end.logs], store.folder / "first.edb", database=store.begun.image, stop=stop).changed
    assert refused(store, image.image, end.logs, stop) == "ese-replay-before-image"
    with Database(store.begun.image) as database:
        ended = database.header.consistent_time.moment
    assert ended is not None
    before = StopAt(time=ended - timedelta(hours=1))
    for one in (image.image, store.begun.image):
        assert refused(store, one, end.logs, before) == "ese-replay-before-image"


def test_a_position_where_the_database_was_detached(store: ProgramStore) -> None:
    """An image from behind a dismount and a mount is not taken for one of between them."""
    work(store, "insert", "commit", "reattach")
    place = store.durable
    store.perform(Operation("insert", row=8, size=7))
    work(store, "commit", "write", "capture")
    attach = next(
        log.records.position(index)
        for log in read_logs(sorted(store.captured[0].logs.glob("*.log")))
        if log.records is not None and log.generation == place >> 32
        for index in reversed(range(len(log.records)))
        if log.records.types[index] == 15
    )
    image = store.captured[0]
    end = store.end()
    assert refused(store, image.image, end.logs, StopAt(attach)) == "ese-replay-before-image"
