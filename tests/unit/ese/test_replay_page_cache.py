"""The pages of a database under replay: however little memory there is, none of their changes gets lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from perdure.ese.database import HEADER_PAGES
from perdure.ese.editing import EditablePage
from perdure.ese.pages import PageFlag
from perdure.ese.replay.page_cache import PageCache

PAGES, SIZE = 1200, 4096
LEAF = int(PageFlag.LEAF | PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "pages.edb", os.O_RDWR | os.O_CREAT)
    os.ftruncate(opened, (PAGES + HEADER_PAGES) * SIZE)
    for number in range(1, PAGES + 1):
        page = EditablePage(SIZE, number, 9, LEAF)
        page.insert(0, b"key", b"0")
        os.pwrite(opened, page.encode(), (number + HEADER_PAGES - 1) * SIZE)
    yield opened
    os.close(opened)


def stored(descriptor: int, number: int) -> bytes:
    content = os.pread(descriptor, SIZE, (number + HEADER_PAGES - 1) * SIZE)
    return EditablePage.parse(content, number).node(0).data


def change(cache: PageCache, number: int, data: bytes) -> None:
    cache.page(number).replace(0, data)
    cache.change(number)


def test_a_page_that_is_written_while_its_neighbours_are_read(descriptor: int) -> None:
    """Reading pages ahead never puts a page as it was before in the place of one that made room for them."""
    cache = PageCache(descriptor, SIZE, "pages.edb", 1)
    change(cache, 100, b"changed")
    for number in range(500, 500 + 256):
        cache.page(number)
    for number in range(800, 800 + 230):
        cache.page(number)
    cache.prefetch(np.array([*range(60, 100), *range(101, 131)], dtype=np.uint32))
    assert cache.page(100).node(0).data == b"changed"


@pytest.mark.parametrize("seed", range(4))
def test_pages_in_any_order(descriptor: int, seed: int) -> None:
    """Pages that are read, read ahead, changed and written in any order are as they were changed last."""
    cache, chance = PageCache(descriptor, SIZE, "pages.edb", 1), Random(seed)
    last: dict[int, bytes] = {}
    for step in range(1500):
        number = chance.randrange(1, PAGES + 1)
        match chance.randrange(8):
            case 0:
                near = chance.randrange(1, PAGES - 100)
                cache.prefetch(np.array(sorted(chance.sample(range(near, near + 100), 50)), dtype=np.uint32))
            case 1 if step % 50 == 1:
                cache.write()
            case 2 | 3 | 4 | 5:
                last[number] = str(step).encode()
                change(cache, number, last[number])
            case _:
                assert cache.page(number).node(0).data == last.get(number, b"0")
    cache.write()
    for number in range(1, PAGES + 1):
        assert stored(descriptor, number) == last.get(number, b"0")
