"""Any history, copied in any steps: the copy holds the same."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.model.positions import Position
from perdure.repository.gc import collect_garbage
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.testing.small_images import MAIL, put_image
from perdure.testing.twin_pools import FOLDER, append_log, copy_all, differences, new_pool, opened, put_delta, put_tree

STEPS = st.lists(
    st.sampled_from(
        ("image", "delta", "delta", "log", "log", "tree", "copy", "points", "prune_a", "prune_b", "collect", "reopen")
    ),
    min_size=4,
    max_size=16,
)


class Histories:
    """A pool with a random history, and its copy. Each step is a method ``do_…``."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.rng = random.Random(seed)
        self.caches = 0
        self.a, self.b = new_pool(place / "a"), new_pool(place / "b")
        self.a.register(MAIL)
        self.a.register(FOLDER)
        self.blocks = [self.rng.randbytes(3000) for _ in range(6)]
        self.end = Position(1, 1)
        self.files: dict[str, Any] = {}
        put_image(self.a, self.some(), self.end)

    def some(self) -> list[bytes]:
        return [self.new() for _ in range(self.rng.randint(1, 6))]

    def new(self) -> bytes:
        """Content, of which half has been there before, so that it is shared in all directions."""
        if self.rng.random() < 0.5:
            self.blocks.append(self.rng.randbytes(3000))
        return self.rng.choice(self.blocks)

    def do_image(self) -> None:
        put_image(self.a, self.some(), self.end)

    def do_delta(self) -> None:
        changes = {3000 * self.rng.randrange(8): self.new() for _ in range(self.rng.randint(1, 3))}
        put_delta(self.a, self.a.points(MAIL.id)[-1], changes, self.end)

    def do_log(self) -> None:
        after = self.end
        opens = self.rng.random() < 0.2
        self.end = Position(after.generation + 1, 3) if opens else Position(after.generation, after.place + 4)
        append_log(self.a, MAIL.id, after, self.end, self.rng.randbytes(2500))

    def do_tree(self) -> None:
        for _ in range(3):
            chunks = [self.new() for _ in range(self.rng.choice([0, 1, 2, 40]))]
            self.files[f"f{self.rng.randrange(5)}"] = chunks
        self.files[f"d{self.rng.randrange(3)}"] = {"x": [self.new()], "y": dict(list(self.files.items())[:2])}
        put_tree(self.a, dict(list(self.files.items())[:6]))

    def do_copy(self) -> None:
        assert copy_all(self.a, self.b).complete

    def do_points(self) -> None:
        numbers = [point.number for point in self.a.points(MAIL.id)]
        assert copy_all(self.a, self.b, *self.rng.sample(numbers, self.rng.randint(1, len(numbers)))).complete

    def do_prune_a(self) -> None:
        self.prune(self.a)

    def do_prune_b(self) -> None:
        self.prune(self.b)

    def prune(self, pool: Pool) -> None:
        for source in (MAIL.id, FOLDER.id):
            numbers = [point.number for point in pool.points(source)][:-1]
            if numbers:
                pool.delete_points(source, self.rng.sample(numbers, self.rng.randint(1, len(numbers))))

    def do_collect(self) -> None:
        collect_garbage(self.a, grace_s=0)
        collect_garbage(self.b, grace_s=0)

    def do_reopen(self) -> None:
        self.caches += 1
        self.a = opened(self.a, self.place / f"cache-a{self.caches}")
        self.b = opened(self.b, self.place / f"cache-b{self.caches}")


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(STEPS, st.integers(0, 2**32))
def test_a_copy_of_any_history_holds_the_same(steps: list[str], seed: int) -> None:
    """However a history grew, was pruned and copied so far, one more copy makes the other pool hold all of it."""
    with tempfile.TemporaryDirectory() as place:
        scene = Histories(Path(place), seed)
        for step in steps:
            getattr(scene, f"do_{step}")()
        scene.do_copy()
        scene.do_reopen()

        assert differences(scene.a, scene.b, MAIL.id) == []
        assert differences(scene.a, scene.b, FOLDER.id) == []
        assert verify_pool(scene.b, data=True).sound
        again = copy_all(scene.a, scene.b)
        assert (again.shipped, [each.copied for each in again.sources]) == (0, [[], []])
