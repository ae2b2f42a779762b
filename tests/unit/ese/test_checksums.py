"""Page checksums: what they hold, what they detect, what they correct."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.ese.checksums import PageState, verify_pages, xor32
from perdure.ese.repair import correct_page, page_state, sealed_page

ECC_SIZES = (2048, 4096, 8192, 16384, 20480, 24576, 28672, 32768)
FLAGS_AT, ECC_FLAG_BIT = 36, 36 * 8 + 13


def page(size: int, seed: int, *, ecc: bool = True) -> bytes:
    content = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    flags = int.from_bytes(content[FLAGS_AT : FLAGS_AT + 4].tobytes(), "little") | 0x2000
    if not ecc:
        flags ^= 0x2000
    content[FLAGS_AT : FLAGS_AT + 4] = np.frombuffer(flags.to_bytes(4, "little"), np.uint8)
    return content.tobytes()


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


@given(size=st.sampled_from(ECC_SIZES), seed=st.integers(0, 2**32), number=st.integers(1, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_sealed_page_is_sound(size: int, seed: int, number: int) -> None:
    """Every page that was sealed verifies, and with another page number it does not."""
    sealed = sealed_page(page(size, seed), number)

    assert page_state(sealed, number) is PageState.SOUND_ECC
    assert page_state(sealed, number ^ 1) is PageState.DAMAGED
    assert sealed_page(sealed, number) == sealed


@given(size=st.sampled_from(ECC_SIZES), seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_flipped_bit_is_detected_and_corrected(size: int, seed: int, data: st.DataObject) -> None:
    """A single flipped bit anywhere is detected, and corrected unless it lies in the checksum or is the format flag."""
    sealed = sealed_page(page(size, seed), 7)
    bit = data.draw(st.integers(0, size * 8 - 1))
    damaged = flipped(sealed, bit)
    corrected = correct_page(damaged, 7)

    assert page_state(damaged, 7) is PageState.DAMAGED
    if bit < 64 or bit == ECC_FLAG_BIT:
        assert corrected is None or corrected.content == sealed
    else:
        assert corrected is not None
        assert corrected.content == sealed
        assert bit in corrected.bits


@pytest.mark.parametrize("size", [4096, 32768])
def test_every_bit_of_a_page_matters(size: int) -> None:
    """No bit of a page can flip without the page being reported, checked for every eighth bit of it in bulk."""
    sealed = np.frombuffer(sealed_page(page(size, 1), 3), np.uint8)
    for start in range(0, size, 1024):
        pages = np.tile(sealed, (1024, 1))
        places = np.arange(start, start + 1024)
        pages[np.arange(1024), places] ^= (1 << (places % 8)).astype(np.uint8)
        states = verify_pages(pages, np.full(1024, 3, np.uint32))
        assert (states == PageState.DAMAGED).all()


@given(seed=st.integers(0, 2**32), bits=st.sets(st.integers(64, 32768 - 1), min_size=2, max_size=2))
@settings(max_examples=150, deadline=None)
def test_two_flipped_bits_are_never_miscorrected(seed: int, bits: set[int]) -> None:
    """Two flipped bits in one block are detected, and are never "corrected" into something else."""
    sealed = sealed_page(page(4096, seed), 9)
    damaged = sealed
    for bit in bits:
        damaged = flipped(damaged, bit)

    assert page_state(damaged, 9) is PageState.DAMAGED
    assert correct_page(damaged, 9) is None


@given(seed=st.integers(0, 2**32), bit=st.integers(0, 4096 * 8 - 1), number=st.integers(1, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_old_checksum_detects_and_does_not_correct(seed: int, bit: int, number: int) -> None:
    """A page with the old checksum verifies, and any flipped bit in it is detected but never corrected."""
    sealed = sealed_page(page(4096, seed, ecc=False), number)
    damaged = flipped(sealed, bit)

    assert page_state(sealed, number) is PageState.SOUND_XOR
    assert page_state(damaged, number) is PageState.DAMAGED
    assert correct_page(damaged, number) is None or bit == ECC_FLAG_BIT


def test_pages_of_all_kinds_are_told_apart_in_one_call() -> None:
    """New, old, never written and damaged pages may be mixed, and each is judged by its own scheme."""
    kinds = [
        sealed_page(page(4096, 1), 1),
        sealed_page(page(4096, 2, ecc=False), 2),
        bytes(4096),
        flipped(sealed_page(page(4096, 4), 4), 999),
    ]
    pages = np.frombuffer(b"".join(kinds), np.uint8).reshape(4, 4096)

    states = verify_pages(pages, np.arange(1, 5, dtype=np.uint32))

    assert states.tolist() == [
        PageState.SOUND_ECC,
        PageState.SOUND_XOR,
        PageState.NEVER_WRITTEN,
        PageState.DAMAGED,
    ]


def test_a_page_that_is_not_quite_empty_is_damaged() -> None:
    """One bit set in a page that was never written is damage."""
    assert page_state(flipped(bytes(4096), 20000), 1) is PageState.DAMAGED


def test_a_large_page_without_the_format_flag_is_damaged() -> None:
    """Pages above 8 KiB never had the old checksum, so without the flag they are not sound."""
    assert page_state(sealed_page(page(16384, 1, ecc=False), 1), 1) is PageState.DAMAGED


def test_xor32_is_that_of_the_specification() -> None:
    """XOR32 starts with the seed and leaves out the first word."""
    block = b"\xff" * 4 + bytes([1, 0, 0, 0]) + bytes(8)

    assert xor32(block) == 0x89ABCDEF ^ 1
