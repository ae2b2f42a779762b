"""Cutting a log at a place inside it: everything up to there stays as it is, and what follows was never written."""

from __future__ import annotations

from perdure.ese.repair import sealed_page
from perdure.model.errors import Damaged
from perdure.workloads.exchange.tokens import segment_of

__all__ = ["cut_log"]

_SEGMENT = 4096


def cut_log(content: bytes, place: int, file: str) -> bytes:
    """A log that ends at a place: what the engine finds behind it is blank, as in a log that is still being written.

    A record of which only a part lies before the place is left unfinished, which the engine takes as the end.

    Args:
        content: The log file.
        place: segment << 16 | bytes used in it.
        file: Its name, for messages.

    Raises:
        Damaged: The log does not reach that far.
    """
    segment, used = segment_of(place)
    end = segment * _SEGMENT + used
    if end > len(content):
        raise Damaged(f"{file} ends before segment {segment}, up to which it is needed", code="damaged-content")
    if not used:
        return content[:end] + bytes(len(content) - end)
    start = segment * _SEGMENT
    kept = content[start:end]
    if any(content[end : start + _SEGMENT]):
        last = sealed_page(kept.ljust(_SEGMENT, b"\0"), segment)
    else:
        last = content[start : start + _SEGMENT]
    return content[:start] + last + bytes(len(content) - start - _SEGMENT)
