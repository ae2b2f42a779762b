"""Checksums of headers, pages and log segments, computed for many at once.

Three schemes. *XOR32* guards headers and the pages of old databases. *ECC* guards pages of up to 8 KiB and log
segments: besides the XOR of all words it keeps, for every bit of a bit's index, the parity of all bits whose index has
it set and of those whose index has it clear, so that a single flipped bit can be named and flipped back. Larger pages
are *four blocks*, each with an ECC checksum of its own; the first block also covers the other three checksums.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGE_PAGE", "PageState", "block_checksums", "block_size", "stored_checksums", "verify_pages", "xor32"]

Octets = NDArray[np.uint8]
Words32 = NDArray[np.uint32]
Words64 = NDArray[np.uint64]

LARGE_PAGE = 8192
"""Pages above this size are checksummed in blocks."""

ECC_FLAG = 0x2000
"""The bit of a page's flags (at offset 36) that says that its checksum is ECC."""

_XOR_SEED = 0x89ABCDEF
_FLAGS = slice(36, 40)
_BATCH = 4 << 20
"""Bytes that are checked in one go: few enough to stay in a core's cache between the passes."""

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class PageState(IntEnum):
    """What a page's checksum says about it."""

    NEVER_WRITTEN = 0
    SOUND_XOR = 1
    SOUND_ECC = 2
    DAMAGED = 3


def xor32(block: bytes | memoryview | Octets) -> int:
    """The XOR32 checksum of one header: all words but the first, in which it is stored.

    Args:
        block: A multiple of 8 bytes.
    """
    return int(_xor32(np.frombuffer(block, np.uint8).reshape(1, -1))[0])


def block_size(page_size: int) -> int:
    """The size of the blocks that a page is checksummed in, in bytes."""
    if page_size <= LARGE_PAGE:
        return page_size
    return 4096 if page_size <= 16384 else 8192


def verify_pages(pages: Octets, numbers: Words32) -> Octets:
    """Check many pages of one size at once.

    Args:
        pages: The pages, ``uint8[n, page_size]``; may be a memory map.
        numbers: The page number that each must have been written for, ``uint32[n]``.

    Returns:
        A :class:`PageState` for every page, ``uint8[n]``.
    """
    count, size = pages.shape
    states = np.empty(count, np.uint8)
    batch = max(1, _BATCH // size)
    for start in range(0, count, batch):
        some = np.ascontiguousarray(pages[start : start + batch])
        states[start : start + batch] = _states(some, numbers[start : start + batch])
    return states


def stored_checksums(pages: Octets) -> Words64:
    """The ECC checksums that pages carry, ``uint64[n, blocks]``."""
    size = pages.shape[1]
    first = pages[:, :8]
    if size <= LARGE_PAGE:
        return np.ascontiguousarray(first).view("<u8")
    more = -(-size // block_size(size)) - 1
    return np.ascontiguousarray(np.concatenate([first, pages[:, 40 : 40 + 8 * more]], axis=1)).view("<u8")


def block_checksums(pages: Octets, numbers: Words32) -> Words64:
    """The ECC checksums that pages should carry, ``uint64[n, blocks]``.

    Args:
        pages: ``uint8[n, page_size]``, C-contiguous.
        numbers: Their page numbers, ``uint32[n]``.
    """
    count, size = pages.shape
    block = block_size(size)
    if size % block == 0:
        per_page = size // block
        ecc, xor = _ecc(pages.reshape(count * per_page, block), headers=slice(None, None, per_page))
        ecc, xor = ecc.reshape(count, per_page), xor.reshape(count, per_page)
    else:  # 20 and 28 KiB pages end in half a block
        parts = [
            _ecc(np.ascontiguousarray(pages[:, at : at + block]), headers=slice(None) if at == 0 else slice(0))
            for at in range(0, size, block)
        ]
        ecc = np.stack([part[0] for part in parts], axis=1)
        xor = np.stack([part[1] for part in parts], axis=1)
    low: Words64 = (xor ^ numbers[:, None]).astype(np.uint64)
    return ecc.astype(np.uint64) << _HALF | low


def _states(pages: Octets, numbers: Words32) -> Octets:
    size = pages.shape[1]
    states = np.full(len(pages), PageState.DAMAGED, np.uint8)
    ecc = (pages[:, _FLAGS].copy().view("<u4")[:, 0] & ECC_FLAG) != 0
    if 2 * np.count_nonzero(ecc) > len(pages):
        # Picking the pages out would cost more than computing a few checksums for nothing.
        states[ecc & _ecc_holds(pages, numbers)] = PageState.SOUND_ECC
    elif ecc.any():
        some = np.flatnonzero(ecc)
        states[some[_ecc_holds(pages[some], numbers[some])]] = PageState.SOUND_ECC
    others = np.flatnonzero(~ecc)
    if not len(others):
        return states
    candidates = others[pages[others, :8].view("<u8")[:, 0] == 0]
    states[candidates[~pages[candidates].any(axis=1)]] = PageState.NEVER_WRITTEN
    if size <= LARGE_PAGE:  # larger pages never had the old checksum
        old = pages[others]
        expected = numbers[others].astype(np.uint64) << _HALF | _xor32(old).astype(np.uint64)
        states[others[old.view("<u8")[:, 0] == expected]] = PageState.SOUND_XOR
    return states


def _ecc_holds(pages: Octets, numbers: Words32) -> NDArray[np.bool_]:
    holds: NDArray[np.bool_] = (block_checksums(pages, numbers) == stored_checksums(pages)).all(axis=1)
    return holds


def _xor32(blocks: Octets) -> Words32:
    """XOR32 of every row of ``uint8[n, size]``."""
    words = np.ascontiguousarray(blocks).view("<u8")
    mixed = np.bitwise_xor.reduce(words, axis=1) ^ (words[:, 0] & _LOW)
    folded: Words32 = (mixed >> _HALF ^ mixed).astype(np.uint32)
    return folded ^ np.uint32(_XOR_SEED)


@cache
def _row_masks(rows: int) -> Words64:
    """For every bit of a row's index, which rows have it set: ``uint64[bits, rows / 64]``, one bit a row."""
    index = np.arange(rows)
    bits = [(index >> bit & 1).astype(np.uint8) for bit in range((rows - 1).bit_length())]
    return np.packbits(np.stack(bits), axis=1, bitorder="little").view("<u8")


def _odd(words: Words32 | Words64) -> Words32:
    return (np.bitwise_count(words) & 1).astype(np.uint32)


_BIT = np.arange(32, dtype=np.uint32)


def _ecc(blocks: Octets, *, headers: slice) -> tuple[Words32, Words32]:
    """ECC and XOR of blocks that are seen as rows of four 32-bit words.

    Args:
        blocks: ``uint8[n, size]``, C-contiguous.
        headers: Which blocks start with a checksum, whose 8 bytes count as zero.

    Returns:
        ECC and XOR, each ``uint32[n]``.
    """
    count, size = blocks.shape
    rows = size // 16
    pairs = blocks.view("<u8").reshape(count, rows, 2)
    left, right = pairs[:, :, 0], pairs[:, :, 1]
    mixed = left ^ right
    mixed[headers, 0] = right[headers, 0]
    right_sum = np.bitwise_xor.reduce(right, axis=1)
    left_sum = np.bitwise_xor.reduce(mixed, axis=1) ^ right_sum

    odd_rows = np.packbits(np.bitwise_count(mixed) & np.uint8(1), axis=1, bitorder="little").view("<u8")
    all_rows = _odd(np.bitwise_xor.reduce(odd_rows, axis=1))
    ecc = np.zeros(count, np.uint32)
    for bit, mask in enumerate(_row_masks(rows)):
        have = _odd(np.bitwise_xor.reduce(odd_rows & mask, axis=1))
        ecc |= have << np.uint32(7 + bit) | (have ^ all_rows) << np.uint32(23 + bit)

    column = [
        part.astype(np.uint32) for part in (left_sum & _LOW, left_sum >> _HALF, right_sum & _LOW, right_sum >> _HALF)
    ]
    ecc |= _odd(column[0] ^ column[1]) << np.uint32(22) | _odd(column[2] ^ column[3]) << np.uint32(6)
    ecc |= _odd(column[0] ^ column[2]) << np.uint32(21) | _odd(column[1] ^ column[3]) << np.uint32(5)

    xor = column[0] ^ column[1] ^ column[2] ^ column[3]
    set_bits = xor[:, None] >> _BIT & np.uint32(1)
    low = np.bitwise_xor.reduce(set_bits * _BIT, axis=1)
    ecc |= low | (low ^ _odd(xor) * np.uint32(31)) << np.uint32(16)
    return ecc, xor
