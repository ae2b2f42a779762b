"""Ranges of an object, joined so that few requests read many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Span", "spans_of"]

_GAP = 1 << 20
"""Bytes that are read in vain rather than asking again: what a request costs, about 20 ms, at 50 MB/s."""

_LONGEST = 16 << 20
"""No request joins ranges beyond this, so that memory stays bounded and several run at a time."""


@dataclass(frozen=True, slots=True)
class Span:
    """One request.

    Args:
        start: First byte.
        end: Behind the last byte.
        numbers: Which of the ranges lie in it.
    """

    start: int
    end: int
    numbers: tuple[int, ...]


def spans_of(ranges: Sequence[tuple[int, int]]) -> list[Span]:
    """Join ranges ``(offset, length)`` that lie close together; empty ones are left out."""
    spans: list[Span] = []
    for number, (offset, length) in sorted(enumerate(ranges), key=lambda item: item[1]):
        end = offset + length
        if not length:
            continue
        last = spans[-1] if spans else None
        if last is not None and offset <= last.end + _GAP and max(end, last.end) - last.start <= _LONGEST:
            spans[-1] = Span(last.start, max(end, last.end), (*last.numbers, number))
        else:
            spans.append(Span(offset, end, (number,)))
    return spans
