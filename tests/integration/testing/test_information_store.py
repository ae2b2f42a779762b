"""What the simulated information store writes: databases and logs that every reader accepts."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pyesedb
import pytest
from dissect.database.ese import ESE

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.ese.editing import EditablePage
from perdure.ese.folders import verify_files
from perdure.ese.logs.files import read_logs
from perdure.ese.logs.record_types import RECORD_TYPES, Head
from perdure.ese.logs.records import LogRecord
from perdure.ese.rows import rows_of
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.space_audit import audit_space
from perdure.testing.information_store.store import InformationStore
from perdure.testing.information_store.stream_end import closed_logs

PAGE_SIZES = (4096, 8192, 32768)

MUST_APPEAR = {
    *("Init2", "Term2", "CreateDB", "CreateDBFinish", "AttachDB", "DetachDB", "ExtendDB", "NOP2", "MacroInfo"),
    *("Begin0", "Commit0", "Rollback", "Begin", "Commit", "MacroBegin", "MacroCommit", "ForceLogRollover"),
    *("CreateMultipleExtentFDP", "CreateSingleExtentFDP", "ConvertFDP2", "Split2", "Merge2", "SetExternalHeader"),
    *(
        "Insert",
        "FlagDelete",
        "Delete",
        "Replace",
        "ReplaceD",
        "Delta",
        "Undo",
        "UndoInfo",
        "FlagInsert",
        "FlagInsertAndReplaceData",
    ),
}


@pytest.fixture(scope="module", params=PAGE_SIZES)
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InformationStore:
    """A store that has worked, was stopped, started again, worked, and was stopped."""
    folder = tmp_path_factory.mktemp(f"store-{request.param}")
    clock = SteppingClock()
    plan = StorePlan(page_size=request.param, layout=LogLayout.APART, seed=request.param)
    store = InformationStore(folder, plan, clock=clock)
    store.add_database("Mailbox-01", mailboxes=3)
    store.work(700)
    store.stop()
    store = InformationStore.open(folder, clock=clock)
    engine = store.databases["Mailbox-01"].engine
    assert engine is not None
    store.work(200)
    engine.roll()
    store.work(100)
    store.stop()
    return store


def database_of(store: InformationStore) -> Path:
    return store.databases["Mailbox-01"].path


def records_of(store: InformationStore) -> Iterator[LogRecord]:
    hosted = store.databases["Mailbox-01"]
    current = hosted.log_folder / f"{hosted.place.base}.log"
    for log in read_logs([*closed_logs(hosted.log_folder, hosted.place.base).values(), current]):
        assert log.records is not None
        yield from log.records


def test_files_and_trees_and_chain_are_sound(stopped: InformationStore) -> None:
    """All that the verifier knows holds for its files: checksums, every tree, every record, the chain of logs."""
    report = verify_files([stopped.folder], trees=True)
    assert [str(finding) for finding in report.findings] == []
    assert read_catalog_names(database_of(stopped)) >= {"MSysObjects", "Mailbox", "Message_1", "Folder_3"}


def test_rows_are_those_of_the_journal(stopped: InformationStore) -> None:
    """A stopped database holds exactly the rows that were committed, bodies included."""
    journal = Journal.load(stopped.journal_path("Mailbox-01"))
    assert journal.compare(database_of(stopped)) == []
    assert sum(map(len, journal.rows_at().values())) > 200


def test_independent_readers_read_every_value(stopped: InformationStore) -> None:
    """Libesedb and dissect see the tables and as many rows as perdure does, and can read every value."""
    path = database_of(stopped)
    expected = row_counts(path)
    file = pyesedb.file()
    file.open(str(path))
    by_libesedb = {}
    for table in (file.get_table(index) for index in range(file.number_of_tables)):
        for record in (table.get_record(index) for index in range(table.number_of_records)):
            for column in range(record.number_of_values):
                record.get_value_data(column)
        by_libesedb[table.name] = table.number_of_records
    file.close()
    with path.open("rb") as handle:
        by_dissect = {}
        for table in ESE(handle).tables():
            count = 0
            for record in table.records():
                for column in table.columns:
                    record.get(column.name)
                count += 1
            by_dissect[table.name] = count
    assert by_libesedb == expected
    assert by_dissect == expected


def test_space_is_kept_truthfully(stopped: InformationStore) -> None:
    """Every page is used by exactly one tree that owns it, or stated to be free by exactly one."""
    assert audit_space(database_of(stopped)) == []


def test_editable_pages_agree_about_every_page(stopped: InformationStore) -> None:
    """Another writer of pages reads every page as it is, counts its free bytes alike, and encodes it again."""
    content = database_of(stopped).read_bytes()
    size = stopped.plan.page_size
    seen = 0
    for number in range(1, len(content) // size - 1):
        raw = content[(number + 1) * size : (number + 2) * size]
        if not any(raw):
            continue
        page = EditablePage.parse(raw, number)
        nodes = list(page.nodes)
        assert page.free == struct.unpack_from("<H", raw, 28)[0]
        page.set_nodes(nodes)
        again = EditablePage.parse(page.encode(), number)
        assert list(again.nodes) == nodes
        assert (again.free, again.external_header, again.dbtime) == (page.free, page.external_header, page.dbtime)
        seen += 1
    assert seen > 30


def test_the_log_has_the_records_of_an_engine(stopped: InformationStore) -> None:
    """Transactions, nested ones, rollbacks, splits, merges, long values and space all leave their kinds of record."""
    names = {record.name for record in records_of(stopped)}
    assert MUST_APPEAR - names == set()


def test_every_change_names_the_dbtime_before(stopped: InformationStore) -> None:
    """Each change of a page names the dbtime that the change before it gave the page: none is missing from the log."""
    times: dict[int, int] = {}
    checked = 0
    for record in records_of(stopped):
        for page, before, after in changes_of(record):
            if before != 0xFFFFFFFFFFFFFFFF and page in times:
                assert times[page] == before, f"{record.position} {record.name}: page {page}"
                checked += 1
            times[page] = after
    assert checked > 3000


def changes_of(record: LogRecord) -> Iterator[tuple[int, int, int]]:
    """Page, dbtime before and after of every change in a record."""
    kind, content = RECORD_TYPES[record.type], record.content
    if kind.head is Head.NONE or kind.name == "UndoInfo":
        return
    (page, after, before) = struct.unpack_from("<IQQ", content, 4)
    yield page, before, after
    if kind.name == "Split2":
        new, right, right_before = struct.unpack_from("<IIQ", content, 32)
        yield from ((number, was, after) for number, was in ((new, 2**64 - 1), (right, right_before)) if number)
    if kind.name == "Merge2":
        right, right_before, left, left_before = struct.unpack_from("<IQIQ", content, 32)
        yield from ((number, was, after) for number, was in ((right, right_before), (left, left_before)) if number)
    if kind.name in ("CreateMultipleExtentFDP", "ConvertFDP2"):
        yield from ((number, 2**64 - 1, after) for number in struct.unpack_from("<II", content, 36))


def read_catalog_names(path: Path) -> set[str]:
    with Database(path) as database:
        return {table.name for table in read_catalog(database).tables}


def row_counts(path: Path) -> dict[str, int]:
    with Database(path) as database:
        return {table.name: sum(1 for _ in rows_of(database, table)) for table in read_catalog(database).tables}
