"""The first bytes of pages, as an image in the pool has them."""

from __future__ import annotations

import numpy as np
import pytest

from perdure.model.errors import Damaged
from perdure.model.extents import build, overlay
from perdure.model.points import ImageFile
from perdure.protection.page_heads import page_heads
from perdure.testing.memory_vault import MemoryVault

PAGE = 512


def page(number: int) -> bytes:
    """A page that is like no other."""
    return number.to_bytes(4, "little") * (PAGE // 4)


@pytest.fixture
def vault() -> MemoryVault:
    """An empty vault."""
    return MemoryVault()


def file_with(vault: MemoryVault, changed: list[int], hole: int) -> ImageFile:
    """A file of 100 pages in one chunk, of which some were stored again together, and one was zeroed."""
    capture = vault.capture("source")
    whole = build(100 * PAGE, [(0, 100 * PAGE, capture.put(b"".join(map(page, range(100)))), 0)])
    packed = capture.put(b"".join(page(1000 + number) for number in changed))
    delta = build(
        100 * PAGE,
        [(number * PAGE, PAGE, packed, row * PAGE) for row, number in enumerate(changed)]
        + [(hole * PAGE, PAGE, None, 0)],
    )
    file = ImageFile("db", 100 * PAGE, PAGE, capture.put_map(overlay(whole, delta)))
    capture.make_durable()
    return file


def test_pages_that_lie_together_are_read(vault: MemoryVault) -> None:
    """Pages of one chunk come with their bytes; those that are scattered, zeroed or not there are left out."""
    changed = list(range(3, 93, 9))
    file = file_with(vault, changed, hole=50)
    pages, heads = page_heads(vault, file, np.array([*changed, 50, 51, 52, 100, 1 << 40]), 16)
    assert pages.tolist() == changed
    assert [head.tobytes() for head in heads] == [page(1000 + number)[:16] for number in changed]


def test_nothing_is_read_for_scattered_pages(vault: MemoryVault) -> None:
    """A chunk is not read for a few pages."""
    file = file_with(vault, [3, 4], hole=50)
    vault.image_map(file)
    of_the_map = vault.decoded
    pages, heads = page_heads(vault, file, np.array([3, 4, 5, 6, 7]), 16)
    assert (len(pages), heads.shape) == (0, (0, 16))
    assert page_heads(vault, file, np.array([], np.int64), 16)[0].tolist() == []
    assert vault.decoded == 3 * of_the_map


def test_a_missing_chunk_is_damage(vault: MemoryVault) -> None:
    """A chunk that is gone is told as damage and not as other bytes."""
    file = file_with(vault, list(range(10)), hole=50)
    vault.chunks.clear()
    with pytest.raises(Damaged):
        page_heads(vault, file, np.arange(10), 16)
