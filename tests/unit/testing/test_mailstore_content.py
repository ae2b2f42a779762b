from __future__ import annotations

import random

import pytest

from perdure.testing.mailstore_content import LARGEST_BODY, SMALLEST_BODY, BodyKind, body, digest, draw_size


@pytest.mark.parametrize("kind", list(BodyKind))
@pytest.mark.parametrize("size", [1, 1024, 70_001, LARGEST_BODY])
def test_a_seed_brings_back_the_same_body(kind: BodyKind, size: int) -> None:
    """A body has exactly the size that was asked for, and its seed regenerates it."""
    first = body(kind, 77, size)

    assert size == len(first)
    assert first == body(kind, 77, size)
    assert size < 16 or first != body(kind, 78, size)


def test_bodies_do_not_change_between_releases() -> None:
    """A ledger that was written once can be checked for ever."""
    assert [digest(body(kind, 1, 4096)) for kind in BodyKind] == [
        "602d4b46cf0e9e1d4c7a7d31cfb471eb",
        "0b225ab748cc443e24878055b6ddea8a",
    ]


def test_sizes_are_skewed_towards_small() -> None:
    """Half of the bodies are small, and some are near the largest."""
    source = random.Random(3)
    sizes = sorted(draw_size(source) for _ in range(5000))

    assert sizes[0] >= SMALLEST_BODY
    assert sizes[2500] < 8 * SMALLEST_BODY
    assert LARGEST_BODY // 2 < sizes[-1] <= LARGEST_BODY
