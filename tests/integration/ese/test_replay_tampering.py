"""What a replay makes of records, pages and bits that were tampered with: it notices, or it is clear why it need not.

Records are tampered with under checksums that hold, so that nothing but their contradictions can show it. Every type of
record is tried with the other tests; ``PERDURE_ESE_TAMPERING=1`` tries every record of the stream (some minutes).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from perdure.ese.database import HEADER_PAGES, Database
from perdure.ese.findings import Severity
from perdure.ese.logs.record_types import name_of
from perdure.ese.logs.segments import SEGMENT_SIZE
from perdure.ese.replay.replaying import ReplayReport, replay
from perdure.model.errors import PerdureError
from perdure.testing.ese_rewriting import PageContent, RewrittenLogs, pages_of
from perdure.testing.ese_tampering import TAMPERINGS, Harmless, TamperedStream, tampered
from perdure.testing.information_store.journal import differences, read_rows
from perdure.testing.information_store.program_store import Operation, ProgramStore, program_base

EVERY_RECORD = bool(os.environ.get("PERDURE_ESE_TAMPERING"))
MEMORY_FILES = Path("/dev/shm")
WORK = (
    *("insert", "insert", "insert", "insert", "update", "update", "update", "body", "body", "delete", "delete"),
    *("begin", "commit", "commit", "commit", "rollback", "flush", "durable", "maintain"),
)
NAMES_THE_PLACE = re.compile(r"record \S+( \d+)? at [0-9A-F]+,[0-9A-F]+,[0-9A-F]+|begun at [0-9A-F]+,|page \d+|logs? ")


@dataclass(frozen=True)
class Made:
    """What a replay made.

    Args:
        report: What it says.
        pages: Every page in use, if it is whole; what was taken back at the end has whatever dbtime came then.
        rows: Every row.
    """

    report: ReplayReport
    pages: dict[int, PageContent]
    rows: dict[str, dict[str, dict[str, int | str | bool]]]


@dataclass
class Scene:
    """A small store that was killed: its logs, images, and what replay of them makes.

    Args:
        page_size: Of its database, bytes.
        folder: For what is made of it.
        logs: The folder of its logs.
        images: The image by its kind, and nothing at all.
        records: The records of its logs.
        streams: Says what of them need not be noticed, for every kind of image.
    """

    page_size: int
    folder: Path
    logs: Path
    images: dict[str, Path | None]
    records: RewrittenLogs
    streams: dict[str, TamperedStream]
    whole: dict[str, Made]

    def attempt(self, logs: Path, image: Path | None) -> Made | PerdureError:
        """What a replay makes, or why it refuses."""
        output = self.folder / "output.edb"
        output.unlink(missing_ok=True)
        try:
            report = replay([logs], output, database=image)
        except PerdureError as error:
            refused = error
        else:
            refused = None
        if refused is not None:
            assert not output.exists(), "a replay that failed leaves nothing that looks like a database"
            assert refused.hint
            return refused
        if any(finding.severity is Severity.DAMAGE for finding in report.findings):
            return Made(report, {}, {})
        pages = pages_of(output, self.page_size)
        last = self.streams["nothing"].last_dbtime
        known = {number: (min(page[0], last + 1), *page[1:]) for number, page in pages.items()}
        return Made(report, known, read_rows(output))

    def is_whole(self, kind: str, made: Made) -> bool:
        """Whether it is just what replay of the logs makes that nobody tampered with."""
        expected = self.whole[kind]
        # A page that is not in use may hold anything; those in use name all others that are.
        same = all(made.pages.get(number) == page for number, page in expected.pages.items())
        return same and made.rows == expected.rows

    def fresh_folder(self) -> Path:
        """An empty folder for logs."""
        folder = self.folder / "tampered"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def stream_of(records: RewrittenLogs, image: Path | None) -> TamperedStream:
    """The stream as a replay onto an image reads it."""
    if image is None:
        return TamperedStream(records.generations, 1)
    with Database(image) as database:
        header = database.header
        dbtimes = {number: database.page(number).header.dbtime for number in range(1, database.page_count + 1)}
    first = header.consistent.generation if header.clean else header.min_required
    until = records.first if header.clean else header.max_required + 1
    return TamperedStream(records.generations, 1, dbtimes, first - records.first, until - records.first)


@pytest.fixture(scope="module", params=[4096, 32768])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A store that worked, with all kinds of records, and was killed."""
    size: int = request.param
    with tempfile.TemporaryDirectory(dir=MEMORY_FILES if MEMORY_FILES.is_dir() else None) as name:
        folder = Path(name)
        (folder / "base").mkdir()
        chance = Random(2)
        store = ProgramStore(folder / "store", program_base(folder / "base", size), 2)

        def work(count: int) -> None:
            for _ in range(count):
                kind = chance.choice(WORK)
                store.perform(Operation(kind, chance.randrange(3), chance.randrange(12), chance.randrange(200)))

        work(60)
        store.perform(Operation("roll"))
        work(20)
        for kind in ("flush", "durable", "capture"):
            store.perform(Operation(kind, size=7))
        work(40)
        store.perform(Operation("durable"))
        logs = store.end().logs
        records = RewrittenLogs(logs)
        images = {"nothing": None, "clean": store.begun.image, "fuzzy": store.captured[0].image}
        streams = {kind: stream_of(records, image) for kind, image in images.items()}
        made = Scene(size, folder, logs, images, records, streams, {})
        for kind, image in images.items():
            whole = made.attempt(logs, image)
            assert isinstance(whole, Made)
            assert whole.report.undone, "a transaction must be open at the end"
            made.whole[kind] = whole
        yield made


def chosen_places(scene: Scene, kind: str) -> list[tuple[int, int]]:
    """One record of every type, or all records."""
    places = scene.records.places()
    if EVERY_RECORD:
        return places
    chance = Random(f"{kind} {scene.page_size}")
    chance.shuffle(places)
    # What the database was made with is in the first log; the others are what replay is for.
    by_type = {scene.records.generations[log][index][0]: (log, index) for log, index in places if log}
    chosen = list(by_type.values())
    # A clean image differs from nothing only in where it begins.
    return chosen[::3] if kind == "clean" else chosen


@pytest.mark.parametrize("how", TAMPERINGS)
@pytest.mark.parametrize("kind", ["nothing", "clean", "fuzzy"])
def test_tampered_records(scene: Scene, kind: str, how: str) -> None:
    """A record dropped, doubled or in another's place is noticed with its place, or it is known why it does no harm."""
    stream = scene.streams[kind]
    outcomes: Counter[str] = Counter()
    for log, index in chosen_places(scene, kind):
        records = scene.records.generations[log]
        if log < stream.first or (how == "swapped" and index + 1 == len(records)):
            continue
        if kind == "clean" and log == stream.first:
            continue  # the image is of a position in that log, and would be of another
        folder = scene.fresh_folder()
        scene.records.write(folder, tampered(scene.records.generations, log, index, how))
        made = scene.attempt(folder, scene.images[kind])
        why = stream.why_harmless(log, index, how)
        what = f"{how} record {index} ({name_of(records[index][0])}) of log {log}, which is {why}"
        if isinstance(made, PerdureError):
            assert NAMES_THE_PLACE.search(made.message), made.message
            assert why not in (Harmless.NOT_READ, Harmless.SAYS_NOTHING), f"{what}: {made.message}"
            outcomes["refused"] += 1
        elif made.report.findings:
            outcomes["noted"] += 1
        elif scene.is_whole(kind, made):
            assert why is not None, f"{what}, was not noticed"
            outcomes["harmless"] += 1
        elif why is Harmless.OPEN:
            begun = {str(one.begun) for one in made.report.open_transactions}
            assert len(begun) == len(scene.whole[kind].report.open_transactions) + 1, what
            outcomes["named"] += 1
        else:
            assert why is Harmless.LAST, f"{what}, made a wrong database"
            outcomes["last"] += 1
    assert outcomes["refused"]
    assert outcomes["last"] <= 1


def test_untouched_records_written_again(scene: Scene) -> None:
    """Records that nobody touched, in logs written anew, make the same: the tampering alone makes the difference."""
    folder = scene.fresh_folder()
    scene.records.write(folder, scene.records.generations)
    for kind, image in scene.images.items():
        made = scene.attempt(folder, image)
        assert isinstance(made, Made)
        assert scene.is_whole(kind, made)


def test_altered_records_end_in_an_error_or_a_database(scene: Scene) -> None:
    """Whatever bytes a record holds under a checksum that fits, a replay ends in an error of its own or verified."""
    chance, noticed = Random(scene.page_size), 0
    places = scene.records.places()
    for log, index in places if EVERY_RECORD else chance.sample(places, 16):
        records = scene.records.copies()
        content = bytearray(records[log][index])
        for _ in range(chance.choice((1, 1, 3))):
            at = chance.randrange(min(1, len(content) - 1), min(len(content), 110))
            content[at] = chance.choice((0, 0xFF, chance.randrange(256), content[at] ^ 1 << chance.randrange(8)))
        records[log][index] = bytes(content)
        folder = scene.fresh_folder()
        scene.records.write(folder, records)
        made = scene.attempt(folder, None)
        noticed += isinstance(made, PerdureError) or bool(made.report.findings)
    assert noticed


def test_flipped_bits_in_a_log(scene: Scene) -> None:
    """A flipped bit anywhere in a log is noticed, or its checksum tells which it was: then all is as it should be."""
    chance = Random(11)
    outcomes: Counter[bool] = Counter()
    for number in range(24):
        folder = scene.fresh_folder()
        for log in scene.logs.glob("*.log"):
            shutil.copy(log, folder / log.name)
        victims = sorted(folder.iterdir())
        victim = victims[number % len(victims)]
        content = bytearray(victim.read_bytes())
        # Behind the segments in use lies what the engine fills logs with.
        used = max(at for at in range(0, len(content), SEGMENT_SIZE) if content[at + 10 : at + 12] != b"\xda\xda")
        content[chance.randrange(used + SEGMENT_SIZE)] ^= 1 << chance.randrange(8)
        victim.write_bytes(content)
        kind = ("nothing", "fuzzy")[number % 2]
        made = scene.attempt(folder, scene.images[kind])
        outcomes[isinstance(made, PerdureError)] += 1
        assert isinstance(made, PerdureError) or scene.is_whole(kind, made)
    assert outcomes[True] > outcomes[False]


def first_touches(scene: Scene, kind: str) -> dict[int, bool]:
    """Whether the first record about a page makes it anew, for every page that the logs are about."""
    stream, found = scene.streams[kind], dict[int, bool]()
    for records in stream.generations[stream.first :]:
        for record in records:
            for page, made_anew in stream.touches(record).items():
                found.setdefault(page, made_anew)
    return found


def test_damaged_pages(scene: Scene) -> None:
    """Any page of an image may be damaged: the logs make it anew, or it is named when it is needed, or at the end.

    Which of the three follows from the first record about the page: one that makes it anew never looks at what was
    there; any other has to; and a page that no record is about is read when the result is verified.
    """
    image = scene.images["fuzzy"]
    assert image is not None
    content, size = image.read_bytes(), scene.page_size
    touches = first_touches(scene, "fuzzy")
    damaged = scene.folder / "damaged.edb"
    outcomes: Counter[str] = Counter()
    for number in range(1, len(content) // size - HEADER_PAGES + 1):
        start = (number + HEADER_PAGES - 1) * size
        if not any(content[start : start + size]):
            continue
        altered = bytearray(content)
        altered[start + 200 : start + 300] = bytes(byte ^ 0x55 for byte in altered[start + 200 : start + 300])
        damaged.write_bytes(altered)
        made = scene.attempt(scene.logs, damaged)
        if touches.get(number):
            assert isinstance(made, Made)
            assert scene.is_whole("fuzzy", made)
            outcomes["made anew"] += 1
        elif number in touches:
            assert isinstance(made, PerdureError)
            assert f"page {number}: " in made.message
            outcomes["needed"] += 1
        else:
            assert isinstance(made, Made)
            assert f"page {number}" in {finding.place for finding in made.report.findings}
            outcomes["found at the end"] += 1
    assert outcomes["needed"]
    assert outcomes["found at the end"]


def test_flipped_bits_in_an_image(scene: Scene) -> None:
    """A flipped bit in any page of an image is corrected, or the page made anew: the result is as it should be."""
    image = scene.images["fuzzy"]
    assert image is not None
    chance, content = Random(2), image.read_bytes()
    damaged = scene.folder / "damaged.edb"
    for _ in range(8):
        altered = bytearray(content)
        altered[chance.randrange(HEADER_PAGES * scene.page_size, len(content))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(altered)
        made = scene.attempt(scene.logs, damaged)
        # A bit of the stored checksum itself names nothing.
        assert isinstance(made, PerdureError) or made.report.findings or scene.is_whole("fuzzy", made)


def test_pages_of_an_image_that_changed_places(scene: Scene) -> None:
    """Two pages of an image in each other's place are noticed, unless the logs make both of them anew."""
    image = scene.images["fuzzy"]
    assert image is not None
    chance, content, size = Random(3), image.read_bytes(), scene.page_size
    touches = first_touches(scene, "fuzzy")
    written = [at for at in range(HEADER_PAGES * size, len(content), size) if any(content[at : at + size])]
    damaged = scene.folder / "damaged.edb"
    for _ in range(8):
        one, other = chance.sample(written, 2)
        altered = bytearray(content)
        altered[one : one + size], altered[other : other + size] = (
            content[other : other + size],
            content[one : one + size],
        )
        damaged.write_bytes(altered)
        made = scene.attempt(scene.logs, damaged)
        anew = all(touches.get(at // size - HEADER_PAGES + 1) for at in (one, other))
        noticed = isinstance(made, PerdureError) or bool(made.report.findings)
        assert noticed != anew
        assert noticed or scene.is_whole("fuzzy", made)


def test_the_rows_are_those_of_the_model(scene: Scene) -> None:
    """Whatever replay begins with, it makes the same rows."""
    nothing, *others = scene.whole.values()
    for other in others:
        assert differences(nothing.rows, other.rows) == []
