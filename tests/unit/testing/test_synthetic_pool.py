"""Synthetic pools are pools: what is measured on them is what it is taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perdure.repository.keys import Passphrase
from perdure.repository.marking import mark
from perdure.repository.opening import open_pool
from perdure.storage.local import LocalStorage
from perdure.testing.synthetic_pool import SYNTHETIC_PASSPHRASE, make_synthetic_pool


def test_a_synthetic_pool_opens_reads_and_is_marked_like_any_other(tmp_path: Path) -> None:
    """Its packs are all known, its maps read back, and marking finds just the chunks that its points name."""
    made = make_synthetic_pool(tmp_path, 160 << 20, sources=2, points=35)

    pool = open_pool(LocalStorage(made.root), Passphrase(SYNTHETIC_PASSPHRASE), made.cache)

    assert not pool.damage
    assert pool.index.pack_count == made.packs
    assert made.points == 70
    points = pool.points(pool.sources()[0].id)
    assert [len(point.files[0].deltas) for point in points] == [*range(33), 0, 1]
    needed = set()
    for point in (points[32], points[34]):
        extents = pool.image_map(point.files[0])
        assert extents.size == int(extents.extents["length"].sum()) == point.size
        assert all(map(pool.index.has, extents.ids()))
        needed.update(extents.ids())
    snapshot = pool.index.snapshot()
    marks = mark(pool, snapshot)
    assert not marks.elsewhere
    use = snapshot.per_pack(marks.live)
    assert int(use.live_chunks[use.stored == use.chunks << 20].sum()) == made.live
    assert marks.live[snapshot.rows(np.frombuffer(b"".join(needed), dtype=np.uint8).reshape(-1, 32))].all()
    assert made.chunks > made.live


def test_a_size_that_does_not_suffice_is_refused(tmp_path: Path) -> None:
    """A pool is not made with fewer points than were asked for."""
    with pytest.raises(ValueError, match="too few"):
        make_synthetic_pool(tmp_path, 1 << 20)
