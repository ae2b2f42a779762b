"""What a replay notices: records that are missing, doubled, moved or altered, and bits that flipped in log or image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from perdure.ese.database import HEADER_PAGES
from perdure.ese.logs.segments import SEGMENT_SIZE
from perdure.ese.replay.replaying import ReplayReport, replay
from perdure.model.errors import PerdureError
from perdure.testing.ese_rewriting import PageContent, RewrittenLogs, pages_of
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.layout import StorePlan
from perdure.testing.information_store.store import InformationStore, StoreOptions

PAGE_SIZES = (4096, 32768)
TRIALS = 10


@dataclass
class Scene:
    """A store that crashed, and what its logs make from nothing."""

    page_size: int
    folder: Path
    logs: Path
    image: Path
    whole: dict[int, PageContent]
    scratch: Path

    def attempt(self, logs: Path, image: Path | None = None) -> tuple[dict[int, PageContent], ReplayReport] | None:
        """The pages that a replay makes, ``None`` if it notices that something is wrong."""
        output = self.scratch / "output.edb"
        output.unlink(missing_ok=True)
        try:
            report = replay([logs], output, database=image)
        except PerdureError:
            assert not output.exists(), "a replay that failed leaves nothing that looks like a database"
            return None
        return (pages_of(output, self.page_size), report) if not report.findings else None

    def silently_wrong(self, logs: Path, image: Path | None = None) -> list[int]:
        """Pages that a replay made otherwise than they should be, and did not notice."""
        made = self.attempt(logs, image)
        if made is None:
            return []
        return sorted(number for number in {*self.whole, *made[0]} if self.whole.get(number) != made[0].get(number))

    def fresh_folder(self) -> Path:
        """An empty folder for logs."""
        folder = self.scratch / "logs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


@pytest.fixture(scope="module", params=PAGE_SIZES)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    size: int = request.param
    folder = tmp_path_factory.mktemp(f"sensitivity-{size}")
    store = InformationStore(
        folder / "store",
        StorePlan(page_size=size, seed=size),
        clock=SteppingClock(),
        options=StoreOptions(write_chance=0.9, cached_pages=40, log_resilience=0),
    )
    hosted = store.add_database("Mailbox", mailboxes=1)
    assert hosted.engine is not None
    store.work(40)
    hosted.engine.roll()
    store.work(30)
    hosted.engine.make_durable()
    image = folder / "image.edb"
    shutil.copy(hosted.path, image)
    store.crash()
    scene = Scene(size, folder, hosted.log_folder, image, {}, folder)
    made = scene.attempt(hosted.log_folder)
    assert made is not None
    scene.whole = made[0]
    assert len(pages_of(image, size)) > 20, "the image must hold pages, or the tests of it show nothing"
    return scene


def dropped(records: list[bytes], index: int, _chance: Random) -> None:
    del records[index]


def doubled(records: list[bytes], index: int, chance: Random) -> None:
    records.insert(chance.randrange(index, min(len(records), index + 40)) + 1, records[index])


def moved(records: list[bytes], index: int, chance: Random) -> None:
    other = min(len(records) - 1, index + chance.choice((1, 2, 7)))
    records[index], records[other] = records[other], records[index]


@pytest.mark.parametrize("tamper", [dropped, doubled, moved])
def test_no_tampering_with_records_goes_unnoticed(
    scene: Scene, tamper: Callable[[list[bytes], int, Random], None]
) -> None:
    """A record that is missing, doubled or in another place is noticed, or makes the same database."""
    logs, chance = RewrittenLogs(scene.logs, scene.page_size), Random(tamper.__name__)
    noticed = 0
    for generation, index in chance.sample(logs.places()[:-40], TRIALS):
        records = logs.copies()
        tamper(records[generation], index, chance)
        folder = scene.fresh_folder()
        logs.write(folder, records)
        made = scene.attempt(folder)
        noticed += made is None
        if made is not None:
            assert made[0] == scene.whole, (tamper.__name__, generation, index)
    assert noticed > TRIALS // 5


def test_altered_records_end_in_an_error_or_a_database(scene: Scene) -> None:
    """Whatever bytes a record holds under a checksum that fits, a replay ends in an error of its own or verified."""
    logs, chance = RewrittenLogs(scene.logs, scene.page_size), Random(scene.page_size)
    noticed = 0
    for generation, index in chance.sample(logs.places(), TRIALS):
        records = logs.copies()
        content = bytearray(records[generation][index])
        for _ in range(chance.choice((1, 1, 3))):
            at = chance.randrange(min(1, len(content) - 1), min(len(content), 110))
            content[at] = chance.choice((0, 0xFF, chance.randrange(256), content[at] ^ 1 << chance.randrange(8)))
        records[generation][index] = bytes(content)
        folder = scene.fresh_folder()
        logs.write(folder, records)
        noticed += scene.attempt(folder) is None
    assert noticed


def test_a_flipped_bit_in_a_log_is_corrected_or_noticed(scene: Scene) -> None:
    """A flipped bit anywhere in a log in use leaves the database as it should be, or is an error."""
    chance = Random(1)
    source = max(scene.logs.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for _ in range(TRIALS // 2):
        folder = scene.fresh_folder()
        for log in scene.logs.glob("*.log"):
            shutil.copy(log, folder / log.name)
        content = bytearray(source.read_bytes())
        # The last segments are not in use, or are the copy of the one before.
        used = max(at for at in range(0, len(content), SEGMENT_SIZE) if content[at + 10 : at + 12] != b"\xda\xda")
        content[chance.randrange(used)] ^= 1 << chance.randrange(8)
        (folder / source.name).write_bytes(content)
        assert scene.silently_wrong(folder) == []


def test_a_flipped_bit_in_an_image_is_corrected_or_noticed(scene: Scene) -> None:
    """A flipped bit in any page of an image is corrected, written over by what the log makes anew, or an error."""
    assert scene.silently_wrong(scene.logs, scene.image) == []
    chance, content = Random(2), scene.image.read_bytes()
    damaged = scene.scratch / "damaged.edb"
    for _ in range(TRIALS // 2):
        altered = bytearray(content)
        altered[chance.randrange(HEADER_PAGES * scene.page_size, len(content))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(altered)
        assert scene.silently_wrong(scene.logs, damaged) == []


def test_pages_of_an_image_that_changed_places_are_noticed(scene: Scene) -> None:
    """Two pages of an image in each other's place are an error, unless the log makes both of them anew."""
    chance, content, size = Random(3), scene.image.read_bytes(), scene.page_size
    written = [at for at in range(HEADER_PAGES * size, len(content), size) if any(content[at : at + size])]
    damaged = scene.scratch / "damaged.edb"
    for _ in range(TRIALS // 2):
        one, other = chance.sample(written, 2)
        altered = bytearray(content)
        altered[one : one + size], altered[other : other + size] = (
            content[other : other + size],
            content[one : one + size],
        )
        damaged.write_bytes(altered)
        assert scene.silently_wrong(scene.logs, damaged) == []
