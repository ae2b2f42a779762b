"""Reading packs and log segments whole, in long ranges: is every byte what was written?

A pack is read once, its end first: the footer tells where the blocks lie, which are then read in ranges of some
megabytes that begin and end with a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged, PerdureError
from perdure.model.logs import LogSpan
from perdure.repository import logs
from perdure.repository.container import BLOCK_HEADER, HEADER_SIZE, ContainerReader, Kind, open_block
from perdure.repository.damage import failures_of
from perdure.repository.keys import KeyRing
from perdure.repository.packs import FOOTER_ROW, footer_rows, pack_name, salvaged_rows
from perdure.repository.pool import Pool
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["PackReading", "known_rows", "read_log", "read_pack"]

_RANGE = 8 << 20
"""Bytes that are read at once."""

_TAIL = 64 << 10
"""Bytes at the end that are read first; the footer of a full pack of large chunks has some 4 KiB."""

Progress = Callable[[int], None]
OnContent = Callable[[bytes, bytes], None]


@dataclass(slots=True)
class PackReading:
    """What reading a pack found.

    Args:
        chunks: Chunks that are in it.
        problems: What is wrong with the pack itself.
        hurt: Chunks that cannot be read from it, with the reason.
    """

    chunks: int = 0
    problems: list[str] = field(default_factory=list)
    hurt: dict[bytes, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.problems and not self.hurt


class _Object:
    """One object, read in ranges of which the last is kept, with its end at hand from the start.

    Args:
        storage: Where it lies.
        name: Its name.
        size: Its bytes.
        progress: Told of the bytes read.
    """

    def __init__(self, storage: Storage, name: str, size: int, progress: Progress) -> None:
        self._storage = storage
        self._name = name
        self._progress = progress
        self._size = size
        self.header = b""
        """Taken instead of what is stored, if it is not empty."""
        self._tail_at = max(0, size - _TAIL)
        self._tail = storage.read_range(name, self._tail_at, size - self._tail_at)
        self._at, self._data = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        if self.header and offset == 0:
            return self.header[:length]
        if offset >= self._tail_at:
            begin = offset - self._tail_at
            return self._tail[begin : begin + length]
        begin = offset - self._at
        if begin < 0 or begin + length > len(self._data):
            ahead = max(length, min(_RANGE, self._size - offset))
            self._at, self._data, begin = offset, self._storage.read_range(self._name, offset, ahead), 0
            self._progress(len(self._data))
        return self._data[begin : begin + length]

    def run(self, offset: int, length: int) -> memoryview:
        """A range that is not kept."""
        self._progress(length)
        return memoryview(self._storage.read_range(self._name, offset, length))

    # As logs.Readable; there is only one object.

    def read_range(self, _name: str, offset: int, length: int) -> bytes:
        return self.read(offset, length)

    def size(self, _name: str) -> int:
        return self._size


def read_pack(
    storage: Storage,
    keys: KeyRing,
    pack: bytes,
    size: int,
    *,
    known: Callable[[], NDArray[np.void]],
    on_content: OnContent = lambda _chunk, _content: None,
    progress: Progress = lambda _: None,
) -> PackReading:
    """Read a whole pack.

    Args:
        storage: Where it lies.
        keys: The pool's keys.
        pack: The pack's id.
        size: Its bytes.
        known: The pack's rows as an index remembers them, asked for when the pack itself cannot tell.
        on_content: Told of every chunk whose content is right, also of those that an ordinary reader cannot reach
            because the pack's header is damaged: the name tells what it was.
        progress: Told of the bytes read.

    Raises:
        ObjectMissing: There is no such pack.
        PerdureError: The storage fails; on a local disk that is taken as damage.
    """
    name, failures, found = pack_name(pack), _failures(storage), PackReading()
    try:
        opened = _Object(storage, name, size, progress)
    except failures as error:
        found.problems.append(error.message)
        found.hurt = dict.fromkeys(known()["id"].tolist(), "nothing of its pack can be read")
        found.chunks = len(found.hurt)
        return found
    reachable = True
    try:
        reader = ContainerReader(opened.read, size, Kind.PACK, keys, name)
        if reader.header[16:] != pack:
            raise Damaged(f"{name} is damaged: its header is that of another pack", code="damaged-object")
    except failures as error:
        found.problems.append(error.message)
        reachable = False
        rebuilt = _with_rebuilt_header(opened, keys, pack, size)
        if rebuilt is None:
            found.hurt = dict.fromkeys(known()["id"].tolist(), "the header of its pack is damaged")
            found.chunks = len(found.hurt)
            return found
        reader = rebuilt
    rows = _rows(reader, pack, known, found, failures)
    found.chunks = len(rows)
    if not reachable:
        found.hurt = dict.fromkeys(rows["id"].tolist(), "the header of its pack is damaged")
    blocks = _Blocks(opened, keys, reader, name=name, failures=failures, found=found, on_content=on_content)
    for run in _runs(rows, size, found):
        blocks.read(run)
    return found


def read_log(storage: Storage, keys: KeyRing, span: LogSpan, progress: Progress = lambda _: None) -> None:
    """Read a whole log segment.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: There is no such segment.
        PerdureError: The storage fails.
    """
    opened = _Object(storage, span.name, span.stored, progress)
    logs.read_segment(opened, keys, span)
    for _ in logs.read_blocks(opened, keys, span):
        pass


def _failures(storage: Storage) -> tuple[type[PerdureError], ...]:
    return tuple(each for each in failures_of(storage) if each is not ObjectMissing)


def _with_rebuilt_header(opened: _Object, keys: KeyRing, pack: bytes, size: int) -> ContainerReader | None:
    """Read a pack under the header that it must have had; its key epoch is one that makes the first block readable."""
    stored = opened.read(0, HEADER_SIZE)
    for epoch in dict.fromkeys([*stored[11:12], *range(256)]):
        opened.header = b"PERDURE\0" + bytes([1, 0, Kind.PACK, epoch]) + bytes(4) + pack
        try:
            reader = ContainerReader(opened.read, size, Kind.PACK, keys, pack_name(pack))
            first = next(reader.scan(), None)
            if first is not None:
                reader.block(first[1], first[0])
                return reader
            footer_rows(reader, pack)
            return reader
        except PerdureError:
            continue
    opened.header = b""
    return None


def known_rows(pool: Pool, pack: bytes) -> NDArray[np.void]:
    """The rows of a pack as the pool's index remembers them."""
    snapshot = pool.index.snapshot()
    numbers = snapshot.rows_of_pack(pack)
    places = snapshot.places(numbers)
    rows = np.zeros(len(numbers), dtype=FOOTER_ROW)
    rows["id"] = snapshot.ids(numbers).view("V32").reshape(-1)
    rows["offset"], rows["stored"], rows["raw"] = places.offset, places.stored, places.raw
    return rows


def _rows(
    reader: ContainerReader,
    pack: bytes,
    known: Callable[[], NDArray[np.void]],
    found: PackReading,
    failures: tuple[type[PerdureError], ...],
) -> NDArray[np.void]:
    """The index rows in the order in which the blocks lie: from the footer, else from block headers or the index."""
    try:
        rows = footer_rows(reader, pack)
    except failures as error:
        found.problems.append(error.message)
        try:
            rows = salvaged_rows(reader)
        except failures:
            rows = np.empty(0, dtype=FOOTER_ROW)
        remembered = known()
        rows = remembered if len(remembered) > len(rows) else rows
    return rows[np.argsort(rows["offset"], kind="stable")]


def _runs(rows: NDArray[np.void], size: int, found: PackReading) -> Iterator[NDArray[np.void]]:
    """Rows in runs that are read at once; what lies outside of the pack is noted."""
    ends = rows["offset"].astype(np.int64) + BLOCK_HEADER + rows["stored"]
    for row in rows[ends > size]:
        found.hurt[row["id"].tobytes()] = "it lies behind the end of its pack, which is cut off"
    rows, ends = rows[ends <= size], ends[ends <= size]
    begins = rows["offset"].astype(np.int64)
    if len(rows) and not found.problems and not np.array_equal(begins, np.append(HEADER_SIZE, ends[:-1])):
        found.problems.append("its blocks do not lie one after the other")
    begin = 0
    while begin < len(rows):
        end = max(begin + 1, int(np.searchsorted(ends, begins[begin] + _RANGE, side="right")))
        yield rows[begin:end]
        begin = end


class _Blocks:
    """Reads the blocks of a pack, run by run, and notes what is damaged.

    Args:
        opened: The pack.
        keys: The pool's keys.
        reader: Knows the pack's header.
        name: The pack's name.
        failures: What reading raises when there is damage.
        found: Where damage is noted.
        on_content: Told of every chunk whose content is right.
    """

    def __init__(
        self,
        opened: _Object,
        keys: KeyRing,
        reader: ContainerReader,
        *,
        name: str,
        failures: tuple[type[PerdureError], ...],
        found: PackReading,
        on_content: OnContent,
    ) -> None:
        self._opened = opened
        self._keys = keys
        self._header = reader.header
        self._name = name
        self._failures = failures
        self._found = found
        self._on_content = on_content

    def read(self, run: NDArray[np.void]) -> None:
        """Read blocks that lie one after the other."""
        first, last = int(run["offset"][0]), int(run["offset"][-1]) + BLOCK_HEADER + int(run["stored"][-1])
        try:
            data = self._opened.run(first, last - first)
        except self._failures as error:
            if len(run) == 1:
                self._found.hurt[run["id"][0].tobytes()] = error.message
                return
            # A bad sector hurts one block of the run: each by itself.
            for row in range(len(run)):
                self.read(run[row : row + 1])
            return
        for chunk, offset, stored, *_ in run.tolist():
            begin = offset - first
            try:
                content = self._content(chunk, data[begin : begin + BLOCK_HEADER + stored])
            except self._failures as error:
                self._found.hurt[chunk] = error.message
            else:
                self._on_content(chunk, content)

    def _content(self, chunk: bytes, sealed: memoryview) -> bytes:
        content = open_block(self._keys, self._header, sealed, self._name, chunk)[1]
        if self._keys.content_id(content) != chunk:
            raise Damaged("its content does not match its id", code="damaged-chunk")
        return content
