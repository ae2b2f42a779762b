"""Looking up what the last point had, alongside a walk in the same order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from perdure.model.entries import Entry, EntryKind
from perdure.model.errors import Damaged
from perdure.model.listings import content_pieces, read_listing
from perdure.workloads.contract import ListingSource
from perdure.workloads.files.notes import Notes

__all__ = ["PreviousContent", "PreviousDirectory"]

_KEPT_CHUNKS = 8


class PreviousDirectory:
    """A directory as the last point has it. Names must be asked for in ascending order.

    A listing that cannot be read counts as empty, with a note: the scan then reads everything again.
    """

    def __init__(self, directory: Entry | None, source: ListingSource | None, notes: Notes) -> None:
        self._source, self._notes = source, notes
        self._entries: Iterator[Entry] = iter(())
        self._next: Entry | None = None
        if directory is not None and source is not None and directory.kind is EntryKind.DIRECTORY:
            self._entries = read_listing(directory, source)
            self._advance()
        self.had_entries = self._next is not None

    def find(self, name: bytes) -> Entry | None:
        """The entry of that name, if there was one."""
        while self._next is not None and self._next.name < name:
            self._advance()
        return self._next if self._next is not None and self._next.name == name else None

    def below(self, name: bytes) -> PreviousDirectory:
        """The directory of that name; an empty one if there was none."""
        return PreviousDirectory(self.find(name), self._source, self._notes)

    def _advance(self) -> None:
        try:
            self._next = next(self._entries, None)
        except Damaged as damage:
            self._next = None
            self._notes.add(f"a directory of the last point cannot be read, so its files are read again: {damage}")


class PreviousContent:
    """Small files' content as the pool has it, to tell whether a re-read file really changed."""

    def __init__(self, source: ListingSource) -> None:
        self._source = source
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()

    def comparison(self, before: Entry) -> Callable[[bytes], bool]:
        """A question: is this the content that ``before`` had? Damage in the pool counts as no."""

        def same(data: bytes) -> bool:
            try:
                position = 0
                for piece in content_pieces(before, self._source):
                    mine = data[position : position + piece.length]
                    stored = self._chunk(piece.chunk)[piece.start : piece.start + piece.length] if piece.chunk else None
                    if mine != (stored if stored is not None else bytes(piece.length)):
                        return False
                    position += piece.length
            except Damaged:
                return False
            return position == len(data)

        return same

    def _chunk(self, chunk: bytes) -> bytes:
        data = self._chunks.get(chunk)
        if data is None:
            data = self._chunks[chunk] = self._source.read_chunk(chunk)
            if len(self._chunks) > _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        else:
            self._chunks.move_to_end(chunk)
        return data
