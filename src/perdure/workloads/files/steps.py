"""The steps of a restore in order, made from listings while chunks are fetched ahead by two threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import Damaged
from perdure.model.listings import content_pieces, read_listing
from perdure.workloads.contract import ListingSource

__all__ = ["ChunkFetcher", "Close", "Data", "Enter", "Hole", "Leave", "Link", "Open", "Step", "steps"]

_KEPT_CHUNKS = 16


class Enter(NamedTuple):
    """Make a directory and go into it; ``damage`` says why its entries are missing."""

    entry: Entry
    damage: str


class Leave(NamedTuple):
    """Give the current directory its metadata and go up."""

    entry: Entry


class Open(NamedTuple):
    """Make a file."""

    entry: Entry


class Data(NamedTuple):
    """Write a run of a chunk; ``first`` when the chunk was asked for because of this step."""

    chunk: bytes
    start: int
    length: int
    content: Future[bytes]
    first: bool


class Hole(NamedTuple):
    """Leave out bytes that read as zeros."""

    length: int


class Close(NamedTuple):
    """Give the open file its size and metadata."""

    entry: Entry


class Link(NamedTuple):
    """Make another name of a file that was written before, at the path ``first``."""

    entry: Entry
    first: tuple[bytes, ...]


Step = Enter | Leave | Open | Data | Hole | Close | Link | Entry
"""A bare entry is a symbolic link to be made."""


class ChunkFetcher:
    """Reads chunks ahead with two threads; the last few stay, because small files share them."""

    def __init__(self, source: ListingSource) -> None:
        self._source = source
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="perdure-get")
        self._kept: OrderedDict[bytes, Future[bytes]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def fetch(self, piece: Piece) -> Data:
        """Ask for the chunk of a piece; it is being read when this returns."""
        content = self._kept.get(piece.chunk)
        if content is not None:
            self._kept.move_to_end(piece.chunk)
            return Data(piece.chunk, piece.start, piece.length, content, False)
        content = self._threads.submit(self._source.read_chunk, piece.chunk)
        self._kept[piece.chunk] = content
        if len(self._kept) > _KEPT_CHUNKS:
            self._kept.popitem(last=False)
        return Data(piece.chunk, piece.start, piece.length, content, True)


Wanted = Sequence[tuple[bytes, ...]]
"""Paths below a directory that are to be restored; the empty path is the directory with all it holds."""


def steps(root: Entry, source: ListingSource, fetcher: ChunkFetcher, wanted: Wanted) -> Iterator[Step]:
    """The steps to restore what is wanted of a tree; directories after what they hold are left with their metadata.

    Raises:
        Damaged: The root's own listing cannot be read. Damage below is part of the steps.
    """
    firsts: dict[int, tuple[bytes, ...]] = {}
    stack = [(root, _entries(root, source), tuple[bytes, ...](), wanted)]
    while stack:
        directory, entries, path, chosen = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            if stack:
                yield Leave(directory)
            continue
        below = _below(chosen, entry.name)
        if not below:
            continue
        if entry.kind is EntryKind.DIRECTORY:
            try:
                inner, damage = _entries(entry, source), ""
            except Damaged as error:
                inner, damage = iter(()), f"what it held is left out: {error}"
            yield Enter(entry, damage)
            stack.append((entry, inner, (*path, entry.name), below))
        elif entry.kind is EntryKind.SYMLINK:
            yield entry
        elif entry.link in firsts:
            yield Link(entry, firsts[entry.link])
        else:
            if entry.link:
                firsts[entry.link] = (*path, entry.name)
            yield from _file(entry, source, fetcher)


def _entries(directory: Entry, source: ListingSource) -> Iterator[Entry]:
    """A whole listing is read before its directory is made, so that damage is known by then."""
    return iter(list(read_listing(directory, source)))


def _below(chosen: Wanted, name: bytes) -> Wanted:
    if () in chosen:
        return [()]
    return [path[1:] for path in chosen if path[0] == name]


def _file(entry: Entry, source: ListingSource, fetcher: ChunkFetcher) -> Iterator[Step]:
    yield Open(entry)
    try:
        pieces = content_pieces(entry, source)
    except Damaged as damage:
        failed: Future[bytes] = Future()
        failed.set_exception(damage)
        yield Data(b"", 0, entry.size, failed, False)
        pieces = ()
    for piece in pieces:
        yield fetcher.fetch(piece) if piece.chunk else Hole(piece.length)
    yield Close(entry)
