"""Positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.errors import BadInput
from perdure.model.positions import Position

positions = st.builds(Position, st.integers(0, 2**32), st.integers(0, 2**64))


@given(positions)
def test_text_reads_back(position: Position) -> None:
    """What ``str`` writes, ``parse`` reads."""
    assert position == Position.parse(str(position))


@given(positions, positions)
def test_order_is_generation_then_place(one: Position, other: Position) -> None:
    """A later generation is later whatever the place."""
    assert (one < other) == ((one.generation, one.place) < (other.generation, other.place))


@pytest.mark.parametrize("text", ["", "3", "3:", ":4", "a:b", "-1:2", "1:2:3"])
def test_other_text_is_refused(text: str) -> None:
    """Anything else is bad input, with a hint."""
    with pytest.raises(BadInput) as caught:
        Position.parse(text)

    assert "GENERATION:PLACE" in caught.value.hint
