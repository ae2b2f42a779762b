"""Defragmenting: the same content out of fewer bytes decoded."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.extents import HOLE, ExtentMap, build, overlay
from perdure.model.points import PointKind, RecoveryPoint
from perdure.protection.defragmenting import WORTH_IT, amplification, defragmented
from perdure.protection.image_verbs import express_full
from perdure.testing.memory_vault import MemoryVault
from perdure.testing.paged_scene import Scene


def read(vault: MemoryVault, extents: ExtentMap) -> bytes:
    """The file that a map describes."""
    content = bytearray(extents.size)
    for offset, length, chunk, start in extents.extents.tolist():
        if chunk != HOLE:
            data = vault.read_chunk(extents.chunks[chunk].tobytes())
            content[offset : offset + length] = data[start : start + length]
    return bytes(content)


@given(seed=st.integers(0, 10**6), rounds=st.integers(0, 12))
def test_content_stays_and_little_is_decoded_for_it(seed: int, rounds: int) -> None:
    """Whatever was overlaid, a defragmented map reads the same, and decodes less than twice what it holds."""
    rng = random.Random(seed)
    vault = MemoryVault()
    capture = vault.capture("s")
    size = 64 * 100

    def some(pages: list[int]) -> ExtentMap:
        chunk = capture.put(rng.randbytes(64 * len(pages)))
        return build(size, [(page * 64, 64, chunk, 64 * row) for row, page in enumerate(sorted(pages))])

    extents = some(list(range(100)))
    for _ in range(rounds):
        extents = overlay(extents, some(rng.sample(range(100), rng.randint(1, 60))))
        holes = [(page * 64, 64, None, 0) for page in rng.sample(range(100), rng.randint(0, 10))]
        extents = overlay(extents, build(size, holes))

    capture.commit(RecoveryPoint(0, "s", PointKind.EXPRESS_FULL, 1))
    capture = vault.capture("s")
    result = defragmented(extents, capture, vault)
    capture.commit(RecoveryPoint(0, "s", PointKind.EXPRESS_FULL, 2))

    assert read(vault, extents) == read(vault, result)
    sizes = vault.chunk_sizes(result.ids())
    assert amplification(result, sizes) <= 1 / 0.6 + 0.01
    if amplification(extents, vault.chunk_sizes(extents.ids())) <= WORTH_IT:
        assert result is extents


def test_hundreds_of_express_fulls_do_not_slow_recovery_down(scene: Scene) -> None:
    """The newest image of a long history decodes little more than it holds."""
    rng = random.Random(7)
    scene.database.commit({page: scene.page(f"{page}") for page in range(40)})
    protected = scene.protect()
    for number in range(150):
        pages = rng.sample(range(40), 4)
        scene.database.commit({page: scene.page(f"{number} {page} {rng.random()}") for page in pages})
        point = express_full(protected)

    extents = scene.vault.image_map(point.files[0])

    # At most 33 deltas of 4 pages each have come since the last base map was defragmented.
    assert int(np.sum(scene.vault.chunk_sizes(extents.ids()))) <= extents.size / 0.6 + 33 * 4 * 64
    assert read(scene.vault, extents) == bytes(scene.database.content)
