"""What a shipped log says about itself beside its bytes: its name, and which pages of the database it changes."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.ese.changes import changed_pages
from perdure.ese.errors import EseDamaged
from perdure.ese.logs.files import Log
from perdure.ese.logs.record_types import RECORD_TYPES, Head
from perdure.ese.logs.records import Records
from perdure.ese.structures import Signature
from perdure.model.errors import Damaged

__all__ = ["LogIndex", "PageChanges", "changes_in", "decode_index", "encode_index"]

_HAS_DBTIME = np.isin(np.arange(256), [kind.number for kind in RECORD_TYPES.values() if kind.head is not Head.NONE])
_NO_DBTIME = (1 << 64) - 1


class PageChanges(msgspec.Struct, frozen=True, array_like=True):
    """Which pages of one database a log changes.

    Args:
        known: Whether every change is known; if not, the rest means nothing.
        pages: Their numbers, ascending, as little-endian ``u32``.
        first_dbtime: No change in this log is older than this count of the database's changes.
    """

    known: bool
    pages: bytes = b""
    first_dbtime: int = _NO_DBTIME

    @property
    def numbers(self) -> NDArray[np.uint32]:
        """The page numbers, ``uint32[n]``."""
        return np.frombuffer(self.pages, "<u4")


class LogIndex(msgspec.Struct, frozen=True, array_like=True):
    """The index of a stored segment, which holds one log file.

    Args:
        version: 1.
        base: Base name of the stream.
        digits: Digits of the number in the file's name.
        generation: The log generation.
        closed: Whether the log is complete.
        changes: What it changes in the protected database.
    """

    version: int
    base: str
    digits: int
    generation: int
    closed: bool
    changes: PageChanges

    @property
    def file_name(self) -> str:
        """The name that the log has when it is complete."""
        return f"{self.base}{self.generation:0{self.digits}X}.log"


_decoder = msgspec.msgpack.Decoder(LogIndex)


def encode_index(index: LogIndex) -> bytes:
    """Write an index (msgpack)."""
    return msgspec.msgpack.encode(index)


def decode_index(data: bytes) -> LogIndex:
    """Read an index.

    Raises:
        Damaged: It is not one.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise Damaged(f"a log segment's index cannot be read: {error}", code="bad-segment-index") from error


def changes_in(log: Log, database: Signature) -> PageChanges:
    """Which pages of a database one log changes; records that do not tell their database count too."""
    try:
        found = changed_pages([log])
    except EseDamaged:
        return PageChanges(known=False)
    assert log.records is not None
    ours = [changes for changes in found if changes.signature == database or not changes.signature]
    pages = np.unique(np.concatenate([changes.pages for changes in ours])) if ours else np.empty(0, np.uint32)
    first = _first_dbtime(log.records, np.array([changes.dbid for changes in ours], np.uint8))
    return PageChanges(True, pages.astype("<u4").tobytes(), first)


def _first_dbtime(records: Records, dbids: NDArray[np.uint8]) -> int:
    """The lowest count that a record gives a page of the databases with these numbers."""
    starts = records.starts[_HAS_DBTIME[records.types]]
    ours = np.zeros(256, bool)
    ours[dbids] = True
    starts = starts[ours[records.content[starts + 3]]]
    if not len(starts):
        return _NO_DBTIME
    counts = np.ndarray((len(records.content) - 7,), "<u8", records.content, strides=(1,))
    return int(counts[starts + 8].min())
