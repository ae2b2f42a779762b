"""One page at a time: the checksum that it should carry, and the one flipped bit that its checksum can name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import (
    ECC_FLAG,
    LARGE_PAGE,
    PageState,
    block_checksums,
    block_size,
    stored_checksums,
    verify_pages,
    xor32,
)

__all__ = ["CorrectedPage", "correct_page", "page_state", "seal_pages", "sealed_page"]

Octets = NDArray[np.uint8]
Words32 = NDArray[np.uint32]

_FORMAT_BIT = 36 * 8 + 13
"""The bit that says that the checksum is ECC: a page in which it flipped cannot be corrected."""

_SUB_CHECKSUMS = 40 * 8
"""Index of the first bit of the checksums of blocks 2 to 4."""


@dataclass(frozen=True, slots=True)
class CorrectedPage:
    """A page whose damage could be undone.

    Args:
        content: The page as it was written.
        bits: Indices, counted from the page's first bit, of the bits that had flipped.
    """

    content: bytes
    bits: tuple[int, ...]


def page_state(page: bytes, number: int) -> PageState:
    """What the checksum of one page says about it."""
    return PageState(verify_pages(_row(page), _number(number))[0])


def sealed_page(page: bytes, number: int) -> bytes:
    """A page with the checksum that its flags ask for; pages above 8 KiB must have the ECC flag set."""
    sealed = bytearray(page)
    if not int.from_bytes(page[36:40], "little") & ECC_FLAG:
        sealed[4:8] = number.to_bytes(4, "little")
        sealed[:4] = xor32(bytes(sealed)).to_bytes(4, "little")
        return bytes(sealed)
    if len(page) > LARGE_PAGE:
        # The first block covers the checksums of the others, so it comes last.
        others = block_checksums(_row(page), _number(number))[0, 1:]
        sealed[40 : 40 + 8 * len(others)] = others.astype("<u8").tobytes()
    sealed[:8] = int(block_checksums(_row(bytes(sealed)), _number(number))[0, 0]).to_bytes(8, "little")
    return bytes(sealed)


def seal_pages(pages: Octets, numbers: Words32) -> Octets:
    """Many pages of one size, each with the checksum that its flags ask for; much faster together than one by one.

    Args:
        pages: ``uint8[n, page_size]``; a page of zeros stays one.
        numbers: Their page numbers, ``uint32[n]``.
    """
    sealed = pages.copy()
    size = pages.shape[1]
    ecc = (sealed[:, 36:40].copy().view("<u4")[:, 0] & ECC_FLAG) != 0
    for index in np.flatnonzero(~ecc).tolist():
        if sealed[index].any():
            sealed[index] = np.frombuffer(sealed_page(sealed[index].tobytes(), int(numbers[index])), np.uint8)
    some = np.flatnonzero(ecc)
    if not len(some):
        return sealed
    rows, own = np.ascontiguousarray(sealed[some]), numbers[some]
    if size > LARGE_PAGE:
        # The first block covers the checksums of the others, so it comes last.
        others = block_checksums(rows, own)[:, 1:]
        rows[:, 40 : 40 + 8 * others.shape[1]] = np.ascontiguousarray(others.astype("<u8")).view(np.uint8)
    rows[:, :8] = np.ascontiguousarray(block_checksums(rows, own)[:, :1].astype("<u8")).view(np.uint8)
    sealed[some] = rows
    return sealed


def correct_page(page: bytes, number: int) -> CorrectedPage | None:
    """Undo a single flipped bit in each block of a damaged page.

    Returns:
        The page as it was written, or ``None`` if more than a bit of a block differs, if the flipped bit is
        in the checksum itself, or if the page has the old checksum, which can only detect.
    """
    if not int.from_bytes(page[36:40], "little") & ECC_FLAG:
        return None
    stored = [int(value) for value in stored_checksums(_row(page))[0]]
    computed = [int(value) for value in block_checksums(_row(page), _number(number))[0]]
    block = block_size(len(page))
    flipped: list[int] = []
    for which, should in enumerate(computed):
        if stored[which] == should:
            continue
        bit = _flipped_bit(stored[which] ^ should, min(block, len(page) - which * block) * 8)
        if bit is None or (which == 0 and bit == _FORMAT_BIT):
            return None
        if which == 0 and len(page) > LARGE_PAGE and 0 <= bit - _SUB_CHECKSUMS < 64 * (len(computed) - 1):
            # The flipped bit lies in the checksum of a later block: judge that block by what it was.
            other, place = divmod(bit - _SUB_CHECKSUMS, 64)
            stored[1 + other] ^= 1 << place
        flipped.append(which * block * 8 + bit)
    corrected = bytearray(page)
    for bit in flipped:
        corrected[bit >> 3] ^= 1 << (bit & 7)
    content = bytes(corrected)
    return CorrectedPage(content, tuple(flipped)) if page_state(content, number) is PageState.SOUND_ECC else None


def _flipped_bit(difference: int, bits: int) -> int | None:
    """The index of the one bit whose flip explains the difference of two checksums of a block."""
    ecc, xor = difference >> 32, difference & 0xFFFFFFFF
    if (ecc >> 16 ^ ecc) & (bits - 1) != bits - 1 or xor.bit_count() != 1:
        return None
    bit = ecc & 0xFFFF
    return bit if bit < bits else None


def _row(page: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(page, np.uint8).reshape(1, -1)


def _number(number: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array([number], np.uint32)
