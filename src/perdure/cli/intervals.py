"""Lengths of time as people write them after an option."""

from __future__ import annotations

import re

from perdure.model.errors import BadInput

__all__ = ["seconds_of"]

_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str, option: str) -> float:
    """Read ``500ms``, ``30s``, ``15min``, ``1h``, ``1d`` or a number of seconds.

    Raises:
        BadInput: It is none of these, or zero.
    """
    match = _INTERVAL.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2] or ""] if match else 0.0
    if not seconds:
        raise BadInput(
            f"{text!r} after {option} is not a length of time",
            code="bad-interval",
            hint="write for example 500ms, 30s, 15min, 1h or 1d",
        )
    return seconds
