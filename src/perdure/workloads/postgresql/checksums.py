"""Page checksums as PostgreSQL computes them, for many pages at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perdure.workloads.postgresql.layout import PAGE

__all__ = ["bad_pages", "page_checksums"]

_LANES = 32
_PRIME = np.uint32(16777619)
_BASES = """
    5B1F36E9 B8525960 02AB50AA 1DE66D2A 79FF467A 9BB9F8A3 217E7CD2 83E13D2C
    F8D4474F E39EB970 42C6AE16 993216FA 7B093B5D 98DAFF3C F718902A 0B1C9CDB
    E58F764B 187636BC 5D7B3BB1 E73DE7DE 92BEC979 CCA6C0B2 304A0979 85AA43D4
    783125BB 6CA8EAA2 E407EAC6 4B5CFC3E 9FBF8C76 15CA20BE F2CA9FD3 959BD756
"""
_START = np.frombuffer(bytes.fromhex(_BASES), ">u4").astype(np.uint32)
_CHECKSUM_AT = 4
"""Where a page's checksum lies, as a 16-bit word: after its LSN, 8 bytes."""


def page_checksums(pages: NDArray[np.uint8], first_block: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The checksums that pages should have.

    Args:
        pages: Shape ``(n, 8192)``.
        first_block: The block number of each page in its relation.
    """
    words = pages.view("<u4").reshape(len(pages), -1, _LANES).transpose(1, 2, 0).copy()
    # The checksum itself counts as zero: the low half of the third word.
    words[0, 2] &= np.uint32(0xFFFF0000)
    sums = np.repeat(_START[:, None], len(pages), axis=1)
    for row in words:
        _mix(sums, row)
    zero = np.zeros_like(sums)
    _mix(sums, zero)
    _mix(sums, zero)
    folded = np.bitwise_xor.reduce(sums, axis=0) ^ first_block.astype(np.uint32)
    return np.asarray(folded % np.uint32(65535) + np.uint32(1), np.uint16)


def _mix(sums: NDArray[np.uint32], values: NDArray[np.uint32]) -> None:
    np.bitwise_xor(sums, values, out=sums)
    shifted = sums >> np.uint32(17)
    np.multiply(sums, _PRIME, out=sums)
    np.bitwise_xor(sums, shifted, out=sums)


def bad_pages(content: bytes | bytearray | memoryview, first_block: int, before: int) -> NDArray[np.int64]:
    """Which pages of a run have a wrong checksum.

    New pages have none. Pages that were written at or after the LSN ``before`` may have been read half written; replay
    mends those.

    Args:
        content: Whole pages.
        first_block: Block number of the first one in its relation.
        before: The LSN.

    Returns:
        Their row numbers.
    """
    pages = np.frombuffer(content, np.uint8).reshape(-1, PAGE)
    halves = pages.view("<u2")
    words = pages.view("<u4")
    lsns = (words[:, 0].astype(np.uint64) << np.uint64(32)) | words[:, 1]
    looked_at = np.flatnonzero((halves[:, 7] != 0) & (lsns < before))
    if not len(looked_at):
        return np.empty(0, np.int64)
    chosen = pages if len(looked_at) == len(pages) else pages[looked_at]
    wrong = page_checksums(chosen, looked_at + first_block) != halves[looked_at, _CHECKSUM_AT]
    return np.asarray(looked_at[wrong], np.int64)
