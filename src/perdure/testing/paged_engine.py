"""A simulated database engine: pages, a log of page writes, generations, and every way of losing the log.

It behaves as the workload contract says, and lets a test cut the log, replace the source, take it away or change
pages behind the log's back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import SourceUnusable, TrackingLost
from perdure.model.logs import MARK, LogEnd, LogSegment
from perdure.model.points import DataSource
from perdure.model.positions import Position
from perdure.workloads.contract import (
    BaseImage,
    Capabilities,
    Image,
    LogReader,
    RestoredItem,
    Verification,
    WorkloadInfo,
)

__all__ = ["PagedEngine", "PagedSession", "PagedSource", "PagedWorkload"]

FILE = "pages"


@dataclass
class _Commit:
    place: int
    time_ns: int
    writes: dict[int, bytes]
    pages: int


@dataclass
class PagedSource:
    """A live database.

    Args:
        page_size: Bytes in a page.
        content: The pages now.
        log: Commits of the present generation that are not recycled.
        present: Whether the source can be found.
        incarnation: Changes when the log is cut or the source replaced; the chain token holds it.
    """

    page_size: int = 64
    content: bytearray = field(default_factory=bytearray)
    log: list[_Commit] = field(default_factory=list)
    place: int = 0
    restarts: int = 0
    present: bool = True
    incarnation: int = 0
    clock: Callable[[], int] = lambda: 0

    def commit(self, writes: Mapping[int, bytes], pages: int | None = None) -> None:
        """Write pages as one transaction; ``pages`` is the database's size afterwards."""
        count = pages if pages is not None else max(len(self.content) // self.page_size, max(writes, default=-1) + 1)
        self.content.extend(bytes(max(0, count * self.page_size - len(self.content))))
        kept = {page: content for page, content in writes.items() if page < count}
        for page, content in kept.items():
            self.content[page * self.page_size : (page + 1) * self.page_size] = content
        del self.content[count * self.page_size :]
        self.place += 1 + len(kept)
        self.log.append(_Commit(self.place, self.clock(), kept, count))

    def cut_log(self) -> None:
        """Recycle the log without asking anybody."""
        self.incarnation += 1
        self.log.clear()

    def change_silently(self, page: int, content: bytes) -> None:
        """Change a page without log, as a bug or a disk would."""
        self.content[page * self.page_size : (page + 1) * self.page_size] = content


class _Reader:
    name = FILE

    def __init__(self, content: bytes, page_size: int, changed: NDArray[np.int64] | None) -> None:
        self._content = content
        self.size, self.page_size, self.changed = len(content), page_size, changed

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


@dataclass(frozen=True)
class _Image:
    position: Position
    chain: bytes
    time_ns: int
    files: Sequence[_Reader]


class PagedSession:
    """A session on a :class:`PagedSource`; implements ``Session``."""

    def __init__(self, source: PagedSource) -> None:
        self._source = source
        self._incarnation = source.incarnation
        self._polled = 0
        self._images = 0
        self._begin(1, source.place)

    def __enter__(self) -> PagedSession:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def _begin(self, generation: int, place: int) -> None:
        self._generation = generation
        self.shipped = Position(generation, place)
        self._polled = place
        self._restarts = self._source.restarts

    def _chain(self) -> bytes:
        return json.dumps([self._source.incarnation, self._restarts]).encode()

    def resume(self, end: LogEnd | None) -> None:
        if end is None:
            return
        incarnation, restarts = json.loads(end.chain)
        if incarnation != self._source.incarnation or restarts != self._source.restarts:
            self._begin(end.position.generation + 2, self._source.place)
            raise TrackingLost("the log was cut while nobody watched")
        self._begin(end.position.generation, end.position.place)

    def poll(self) -> bool:
        if not self._source.present:
            raise SourceUnusable("the source is gone", code="source-missing")
        if self._source.incarnation != self._incarnation:
            self._incarnation = self._source.incarnation
            self._begin(self._generation + 2, self._source.place)
            raise TrackingLost("the log was cut under the session")
        self._polled = self._source.place
        return self._polled > self.shipped.place

    def log(self) -> Iterator[LogSegment]:
        commits = [c for c in self._source.log if self.shipped.place < c.place <= self._polled]
        # Two commits a segment, so that tests see several.
        for at in range(0, len(commits), 2):
            part = commits[at : at + 2]
            segment = self._segment(part)
            yield segment
            self.shipped = segment.last

    def _segment(self, commits: list[_Commit]) -> LogSegment:
        marks = np.array([(commit.place, commit.time_ns) for commit in commits], dtype=MARK)
        pages = sorted({page for commit in commits for page in commit.writes})
        last = Position(self._generation, commits[-1].place)
        blocks = [
            json.dumps([c.place, c.pages, {page: text.hex() for page, text in c.writes.items()}]).encode()
            for c in commits
        ]
        sizes = [c.pages for c in commits]
        return LogSegment(self.shipped, last, marks, self._chain(), json.dumps([pages, sizes]).encode(), blocks)

    def acknowledge(self, position: Position) -> None:
        self.shipped = max(self.shipped, position)

    def maintain(self, ship: Callable[[LogSegment], None]) -> None:
        if self._images:
            return
        self.poll()
        for segment in self.log():
            ship(segment)
        self._source.log.clear()

    @contextmanager
    def image(self, base: BaseImage | None) -> Iterator[Image]:
        content = bytes(self._source.content)
        late = [c for c in self._source.log if c.place > self.shipped.place]
        assert not late or self._polled == self.shipped.place, "an image was asked for before its log was shipped"
        assert not late, "the simulator cannot freeze the past"
        self._images += 1
        changed = None if base is None else self._changed(base, len(content) // self._source.page_size)
        try:
            reader = _Reader(content, self._source.page_size, changed)
            yield _Image(self.shipped, self._chain(), self._source.clock(), [reader])
        finally:
            self._images -= 1

    def _changed(self, base: BaseImage, pages: int) -> NDArray[np.int64]:
        found: set[int] = set()
        smallest = base.sizes[FILE] // self._source.page_size
        for segment in base.log():
            touched, sizes = json.loads(segment.index)
            found.update(touched)
            smallest = min(smallest, *sizes)
        # What was cut off and grew again is zeros, whatever the base has there.
        found.update(range(smallest, pages))
        return np.array(sorted(page for page in found if page < pages), dtype=np.int64)


class PagedEngine:
    """The databases that a :class:`PagedWorkload` can find, by location."""

    def __init__(self) -> None:
        self.sources: dict[str, PagedSource] = {}


class PagedWorkload:
    """Implements ``ImageWorkload`` for simulated databases."""

    kind = "paged"
    capabilities = Capabilities(log=True, items=True)

    def __init__(self, engine: PagedEngine) -> None:
        self._engine = engine

    def _source(self, location: str) -> PagedSource:
        source = self._engine.sources.get(location)
        if source is None or not source.present:
            raise SourceUnusable(f"{location} is missing", code="source-missing")
        return source

    def discover(self, location: str) -> WorkloadInfo:
        source = self._source(location)
        return WorkloadInfo(location, f"{len(source.content)} bytes", Path(location).name)

    def prepare(self, location: str) -> str:
        self._source(location)
        return "nothing had to be done"

    def open(self, source: DataSource) -> PagedSession:
        return PagedSession(self._source(source.location))

    def target_paths(self, names: Sequence[str], target: Path) -> dict[str, Path]:
        return dict.fromkeys(names, target)

    def live_paths(self, names: Sequence[str], location: str) -> dict[str, Path]:
        # It lives in memory only.
        del names, location
        return {}

    def in_place_target(self, location: str) -> Path:
        return Path(location)

    def apply_log(self, paths: Mapping[str, Path], log: LogReader, upto: Position) -> None:
        path = paths[FILE]
        content = bytearray(path.read_bytes())
        for segment in log.segments():
            for block in log.blocks(segment):
                place, pages, writes = json.loads(block)
                if Position(segment.last.generation, place) <= upto:
                    content = _applied(content, pages, writes)
        path.write_bytes(content)

    def join_log(self, log: LogReader) -> LogSegment:
        segments = list(log.segments())
        indexes = [json.loads(segment.index) for segment in segments]
        pages = sorted({page for touched, _ in indexes for page in touched})
        index = json.dumps([pages, [size for _, sizes in indexes for size in sizes]]).encode()
        blocks = [block for segment in segments for block in log.blocks(segment)]
        marks = np.concatenate([segment.marks for segment in segments])
        return LogSegment(segments[0].after, segments[-1].last, marks, segments[-1].chain, index, blocks)

    def verify(self, paths: Mapping[str, Path], thorough: bool) -> Verification:  # noqa: ARG002 - one kind only
        size = paths[FILE].stat().st_size
        return Verification(True, "counting bytes", (f"{size} bytes",))

    def items(self, paths: Mapping[str, Path], within: str) -> list[RestoredItem]:
        return [RestoredItem(within or FILE, "file", paths[FILE].stat().st_size)]


def _applied(content: bytearray, pages: int, writes: Mapping[str, str]) -> bytearray:
    page_size = PagedSource.page_size
    size = pages * page_size
    content = bytearray(content[:size].ljust(size, b"\0"))
    for page, text in writes.items():
        at = int(page) * page_size
        content[at : at + page_size] = bytes.fromhex(text)
    return content
