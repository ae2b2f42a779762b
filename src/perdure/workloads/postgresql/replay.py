"""How much a server replayed and how long that took, as it says itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perdure.workloads.postgresql.lsn import parse_lsn

__all__ = ["ASSUMED_RATE", "Replay", "replay_of"]

ASSUMED_RATE = 50_000_000
"""Bytes of WAL a second, where no drill has measured any: what a small machine replays of a mixed load."""

_STARTS = re.compile(r"redo starts at ([0-9A-F]+/[0-9A-F]+)")
_DONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+) .*elapsed: ([0-9.]+) s")


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay: its bytes of WAL and seconds."""

    bytes: int
    seconds: float


def replay_of(log: str) -> Replay | None:
    """The last replay that a server's log tells of, in English; ``None`` if there is none."""
    begun, done = _STARTS.findall(log), _DONE.findall(log)
    if not begun or not done:
        return None
    lsn, seconds = done[-1]
    return Replay(max(0, parse_lsn(lsn) - parse_lsn(begun[-1])), float(seconds))
