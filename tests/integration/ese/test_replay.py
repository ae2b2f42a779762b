"""Replay against a simulated engine: any image, at any position, gives the rows that were committed there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyesedb
import pytest
from dissect.database.ese import ESE

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.ese.folders import verify_files
from perdure.ese.logs.files import read_logs
from perdure.ese.pages import PageFlag
from perdure.ese.replay.replaying import ReplayReport, replay
from perdure.ese.replay.stops import END_OF_LOGS, StopAt, parse_stop
from perdure.ese.rows import rows_of
from perdure.ese.structures import LogPosition
from perdure.model.errors import PerdureError
from perdure.testing.information_store.administration import move
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.space_audit import audit_space
from perdure.testing.information_store.store import InformationStore, StoreOptions

NAME = "Mailbox-01"
SMALLEST = 1
"""Memory for the fewest pages that a replay can work with: pages are written and read again all the time."""


@dataclass
class Crashed:
    """A store that has died, with images of its database from before.

    Args:
        folder: For what is made of it.
        journal: What was committed.
        logs: Its logs.
        images: The database at some moments, and the end of the log then; the last is as the crash left it.
        positions: Every record's.
    """

    folder: Path
    journal: Journal
    logs: list[Path]
    images: list[tuple[Path, LogPosition]]
    positions: list[LogPosition] = field(default_factory=list)

    def replayed(self, image: Path | None, stop: LogPosition | None = None) -> ReplayReport:
        """Replay, and check that the result is whole and holds just the rows committed before its position."""
        output = self.folder / "replayed.edb"
        output.unlink(missing_ok=True)
        until = END_OF_LOGS if stop is None else StopAt(stop)
        name = f"{NAME}.edb" if image is None else ""
        report = replay(self.logs, output, database=image, stop=until, name=name, memory=SMALLEST)
        # A position may lie within a macro, which then has no effect, and that is said.
        told = [str(finding) for finding in report.findings if finding.code != "ese-replay-unfinished"]
        assert told == []
        assert self.journal.compare(output, stop or report.position) == []
        return report


def crashed_store(folder: Path, page_size: int, seed: int) -> Crashed:
    """A store that worked, wrote pages whenever it liked, and died, perhaps with its power."""
    chance = Random(seed)
    power = chance.random() < 0.5
    options = StoreOptions(
        checkpoint_depth=chance.choice([1, 2, 5]),
        log_resilience=chance.choice([0, 1, 3]),
        cached_pages=chance.choice([40, 80, 400]),
        write_chance=chance.choice([0.1, 0.5, 0.9]),
    )
    plan = StorePlan(page_size=page_size, layout=chance.choice(list(LogLayout)), seed=seed)
    store = InformationStore(
        folder / "store", plan, disk=Disk(may_lose_power=power), clock=SteppingClock(), options=options
    )
    hosted = store.add_database(NAME, mailboxes=chance.randrange(1, 4))
    if chance.random() < 0.3:
        store.add_database("Mailbox-02", mailboxes=1)
    images: list[tuple[Path, LogPosition]] = []
    for number in range(2):
        store.work(chance.randrange(1, 250))
        assert hosted.engine is not None
        if chance.random() < 0.3:
            hosted.engine.roll()
        for _ in range(chance.randrange(8)):
            hosted.step()
        hosted.engine.make_durable()
        image = folder / f"image-{number}.edb"
        shutil.copyfile(hosted.path, image)
        end = hosted.engine.stream.end
        images.append((image, LogPosition(end >> 32, end >> 16 & 0xFFFF, end & 0xFFFF)))
    store.work(chance.randrange(0, 150))
    store.crash(lose_power=chance if power else None)
    found = hosted.log_folder.glob(f"{hosted.place.base}*.log")
    logs = sorted(found, key=lambda path: path.stem.ljust(11, "~"))
    crashed = Crashed(folder, Journal.load(store.journal_path(NAME)), logs, images)
    for log in read_logs(logs):
        assert log.records is not None
        crashed.positions += [log.records.position(index) for index in range(len(log.records))]
    crashed.positions.sort()
    crashed.images.append((hosted.path, crashed.positions[-1]))
    return crashed


def check_at_random(crashed: Crashed, chance: Random, count: int) -> int:
    """Replay images and nothing to random positions; how many were taken from images that are not newer."""
    done = 0
    for _ in range(count):
        image, taken = chance.choice(crashed.images)
        later = [position for position in crashed.positions if position >= taken]
        if later:
            crashed.replayed(image, chance.choice(later))
            done += 1
        crashed.replayed(None, chance.choice(crashed.positions))
    return done


@pytest.mark.parametrize(("page_size", "seed"), [(4096, 0), (8192, 1), (16384, 0), (32768, 1)])
def test_any_image_at_any_position(tmp_path: Path, page_size: int, seed: int) -> None:
    """Images of any moment, the crash's too, and nothing at all, replayed to any record, hold the rows of then."""
    crashed = crashed_store(tmp_path, page_size, seed)
    reports = [crashed.replayed(image) for image, _taken in crashed.images]
    reports.append(crashed.replayed(None))
    assert len({(report.position, report.dbtime) for report in reports}) == 1
    check_at_random(crashed, Random(seed), 2)


@pytest.mark.slow
@pytest.mark.parametrize(("page_size", "seed"), [(4096, 100), (32768, 101)])
def test_many_moments(tmp_path: Path, page_size: int, seed: int) -> None:
    """The same for many more positions of two stores; the many programs are those of ``test_replay_programs.py``."""
    crashed = crashed_store(tmp_path, page_size, seed)
    for image, _taken in crashed.images:
        crashed.replayed(image)
    check_at_random(crashed, Random(seed), 12)


def test_a_database_that_moves_and_comes_and_goes(tmp_path: Path) -> None:
    """Dismounting, mounting, another path: an image from before or between is brought through all of it."""
    plan = StorePlan(page_size=4096, layout=LogLayout.APART, seed=5)
    store = InformationStore(tmp_path / "store", plan, clock=SteppingClock(), options=StoreOptions(write_chance=0.5))
    hosted = store.add_database(NAME, mailboxes=1)
    store.work(40)
    assert hosted.engine is not None
    hosted.engine.make_durable()
    dirty, clean = tmp_path / "dirty.edb", tmp_path / "clean.edb"
    shutil.copyfile(hosted.path, dirty)
    move(store, NAME, file="elsewhere/renamed.edb")
    store.dismount(NAME)
    shutil.copyfile(hosted.path, clean)
    store.mount(NAME)
    store.work(30)
    store.crash()
    logs = sorted(hosted.log_folder.glob(f"{hosted.place.base}*.log"))
    crashed = Crashed(tmp_path, Journal.load(store.journal_path(NAME)), logs, [])
    reports = [crashed.replayed(image) for image in (dirty, clean, hosted.path, None)]
    assert len({(report.position, report.dbtime) for report in reports}) == 1
    assert reports[0].original.endswith("renamed.edb")


def test_several_databases_on_one_stream(tmp_path: Path) -> None:
    """Where logs make several databases, each can be built by its name, and none is chosen without being asked for."""
    plan = StorePlan(page_size=4096, layout=LogLayout.SHARED, seed=5)
    store = InformationStore(tmp_path / "store", plan, clock=SteppingClock())
    names = ("Mailbox-01", "Mailbox-02")
    for name in names:
        store.add_database(name, mailboxes=1)
    store.work(40)
    logs = store.databases[NAME].log_folder
    store.crash()
    with pytest.raises(PerdureError) as ambiguous:
        replay([logs], tmp_path / "one.edb")
    assert ambiguous.value.code == "ese-replay-ambiguous"
    assert "--name" in ambiguous.value.hint
    for name in names:
        report = replay([logs], tmp_path / f"{name}.edb", name=f"{name}.edb")
        assert Journal.load(store.journal_path(name)).compare(report.output, report.position) == []
    with pytest.raises(PerdureError) as unknown:
        replay([logs], tmp_path / "three.edb", name="Mailbox-03.edb")
    assert unknown.value.code == "ese-replay-no-database"


def test_a_database_that_was_detached(tmp_path: Path) -> None:
    """Logs that end with the database detached leave nothing to take back, and the result is as the engine left it."""
    plan = StorePlan(page_size=4096, layout=LogLayout.APART, seed=6)
    store = InformationStore(tmp_path / "store", plan, clock=SteppingClock())
    hosted = store.add_database(NAME, mailboxes=1)
    store.work(60)
    logs = hosted.log_folder
    store.stop()
    report = replay([logs], tmp_path / "built.edb")
    assert (report.undone, report.open_transactions, report.from_nothing) == (0, (), True)
    assert Journal.load(store.journal_path(NAME)).compare(report.output) == []
    assert verify_files([report.output], trees=True).findings == ()
    assert audit_space(report.output) == []
    with Database(report.output) as built, Database(hosted.path) as left:
        assert built.page_count == left.page_count
        assert (built.header.signature, built.header.dbtime) == (left.header.signature, left.header.dbtime)
        for number in range(1, left.page_count + 1):
            one, other = built.page(number), left.page(number)
            assert [(node.key, node.data) for node in one.nodes()] == [(node.key, node.data) for node in other.nodes()]
            assert one.header.dbtime == other.header.dbtime
            if not one.header.flags & PageFlag.EMPTY:
                assert one.external_header == other.external_header
    expected = rows_by_libesedb(hosted.path)
    assert rows_by_libesedb(report.output) == expected
    assert rows_by_dissect(report.output) == expected.keys()


@pytest.fixture(scope="module", params=[4096, 32768])
def crashed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    """One store that crashed, for tests that only look at it."""
    return crashed_store(tmp_path_factory.mktemp("crashed"), request.param, 7)


def test_every_result_is_a_whole_database(crashed: Crashed) -> None:
    """A replayed database is clean, its trees and its space are whole, and independent readers read every value."""
    for image, _taken in crashed.images:
        report = crashed.replayed(image)
        assert verify_files([report.output], trees=True).findings == ()
        assert audit_space(report.output) == []
        with Database(report.output) as database:
            header = database.header
            assert header.clean
            assert (header.dbtime, header.consistent) == (report.dbtime, report.position)
            assert not header.required_generations
            expected = {table.name: sum(1 for _ in rows_of(database, table)) for table in read_catalog(database).tables}
        assert rows_by_libesedb(report.output) == expected
        assert rows_by_dissect(report.output) >= expected.keys()


def rows_by_libesedb(path: Path) -> dict[str, int]:
    """Rows by table, every value read."""
    file = pyesedb.file()
    file.open(str(path))
    found = {}
    for table in (file.get_table(index) for index in range(file.number_of_tables)):
        for record in (table.get_record(index) for index in range(table.number_of_records)):
            for column in range(record.number_of_values):
                record.get_value_data(column)
        found[table.name] = table.number_of_records
    file.close()
    return found


def rows_by_dissect(path: Path) -> set[str]:
    """Tables, every value of every row read; it also shows rows that are flagged as deleted, so it does not count."""
    with path.open("rb") as handle:
        tables = set()
        for table in ESE(handle).tables():
            for record in table.records():
                for column in table.columns:
                    record.get(column.name)
            tables.add(table.name)
    return tables


def test_replaying_again_changes_nothing(crashed: Crashed, tmp_path: Path) -> None:
    """A result is a clean image: replayed once more with the same logs it is the same, page for page."""
    whole = [position for position in crashed.positions if position >= crashed.images[0][1]]
    report = crashed.replayed(crashed.images[0][0], whole[0])
    first = tmp_path / "first.edb"
    shutil.move(report.output, first)
    again = replay(crashed.logs, tmp_path / "again.edb", database=first, stop=StopAt(report.position))
    assert again.changed == 0
    assert (tmp_path / "again.edb").read_bytes()[8192:] == first.read_bytes()[8192:]


def test_an_older_position_than_the_image(crashed: Crashed) -> None:
    """A position that the image has passed is refused, and only such positions are."""
    image, taken = crashed.images[-1]
    refused = 0
    for position in crashed.positions[:: max(1, len(crashed.positions) // 12)]:
        code = ""
        try:
            crashed.replayed(image, position)
        except PerdureError as error:
            code = error.code
        assert code in ("", "ese-replay-before-image")
        assert not code or position < taken
        refused += bool(code)
    assert refused > 2


def test_generations_and_times(crashed: Crashed) -> None:
    """A generation counts whole, and a time ends before the first segment begun after it."""
    image, taken = crashed.images[1]
    generation = taken.generation
    whole = parse_stop(f"{generation:X}").position
    report = crashed.replayed(image, whole)
    assert report.position.generation == generation
    log = next(log for log in read_logs(crashed.logs) if log.generation == crashed.positions[-1].generation)
    assert log.segments is not None
    assert log.header is not None
    moment = log.header.created.moment
    assert moment is not None
    output = crashed.folder / "replayed.edb"
    output.unlink(missing_ok=True)
    report = replay(crashed.logs, output, stop=StopAt(time=moment), name=f"{NAME}.edb")
    assert report.time is not None
    assert report.time <= moment
    assert crashed.journal.compare(output, report.position) == []


@pytest.fixture
def own_copy(crashed: Crashed, tmp_path: Path) -> Crashed:
    """A copy of it that a test may damage."""
    logs = [tmp_path / path.name for path in crashed.logs]
    for path, copy in zip(crashed.logs, logs, strict=True):
        shutil.copyfile(path, copy)
    return Crashed(tmp_path, crashed.journal, logs, crashed.images, crashed.positions)


def refusal(crashed: Crashed, image: Path | None) -> PerdureError:
    """Why a replay fails; it leaves no file behind."""
    with pytest.raises(PerdureError) as raised:
        crashed.replayed(image)
    assert not (crashed.folder / "replayed.edb").exists()
    assert raised.value.hint
    return raised.value


def test_a_missing_log(own_copy: Crashed) -> None:
    """A log that is missing between others is named; the replay can end before it."""
    own_copy.logs.pop(1).unlink()
    error = refusal(own_copy, None)
    assert (error.code, "log 2 of stream" in error.message) == ("ese-log-missing", True)
    own_copy.replayed(None, LogPosition(2, 0, 0))


def test_a_missing_needed_log(own_copy: Crashed) -> None:
    """An image without a log that it needs is refused, and the message says which one."""
    image, _taken = own_copy.images[-1]
    with Database(image) as database:
        needed = database.header.required_generations
    for log in read_logs(own_copy.logs):
        if log.generation == needed[0]:
            log.path.unlink()
            own_copy.logs.remove(log.path)
    error = refusal(own_copy, image)
    assert error.code == "ese-required-log-missing"
    assert f"log {needed[0]:X} of stream" in error.message


def test_logs_of_another_stream(own_copy: Crashed, tmp_path: Path) -> None:
    """Logs with the right names and another identity are not of the image."""
    other = InformationStore(tmp_path / "other", StorePlan(seed=99), clock=SteppingClock())
    hosted = other.add_database(NAME, mailboxes=1)
    other.crash()
    own_copy.logs[:] = sorted(hosted.log_folder.glob("*.log"))
    assert refusal(own_copy, own_copy.images[0][0]).code == "ese-replay-no-logs"


def test_a_damaged_log(own_copy: Crashed) -> None:
    """A log with a damaged segment is refused and named; before the damage the replay can end."""
    log = own_copy.logs[0]
    content = bytearray(log.read_bytes())
    content[5 * 4096 + 100 : 5 * 4096 + 200] = bytes(100)
    log.write_bytes(content)
    error = refusal(own_copy, None)
    assert error.code == "ese-segment-damaged"
    assert log.name in error.message
    before = [position for position in own_copy.positions if position < LogPosition(1, 5, 0)]
    own_copy.replayed(None, before[-1])


def test_an_output_that_exists(crashed: Crashed, tmp_path: Path) -> None:
    """Nothing is ever written over."""
    output = tmp_path / "there.edb"
    output.write_bytes(b"precious")
    with pytest.raises(PerdureError) as raised:
        replay(crashed.logs, output, database=crashed.images[0][0])
    assert raised.value.code == "ese-replay-output-exists"
    assert output.read_bytes() == b"precious"


def test_images_and_logs_are_not_written_to(crashed: Crashed) -> None:
    """Whatever replay does, image and logs stay as they are."""
    image, _taken = crashed.images[0]
    before = [path.read_bytes() for path in (image, *crashed.logs)]
    crashed.replayed(image)
    assert [path.read_bytes() for path in (image, *crashed.logs)] == before
