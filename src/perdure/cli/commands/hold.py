"""``perdure hold`` and ``perdure release``."""

from __future__ import annotations

import time

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.point_names import parse_point
from perdure.cli.session import Session
from perdure.model.points import Hold

__all__ = ["hold", "release"]


def hold(point: str, /, *, reason: str = "", pool: str | None = None, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Keep a recovery point from ever being deleted, until it is released.

    The hold lies in the pool, so it is obeyed on every machine and comes back when the pool is opened elsewhere.

    For example:

        perdure hold app#12 --reason 'audit 2026'

    Args:
        point: The recovery point, as NAME#NUMBER.
        reason: Why it is held; shown wherever the point is spared.
        pool: Do it in the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    name, number = parse_point(point)
    with Session(common) as session:
        protected = session.protected(name, pool)
        protected.vault.hold(Hold(protected.source.id, number, reason, time.time_ns()))
    if common.json:
        print_json({"source": name, "number": number, "held": True, "reason": reason})
    else:
        print_lines([f"Recovery point #{number} of {name!r} is held until: perdure release {point}"])
    return 0


def release(point: str, /, *, pool: str | None = None, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Release a held recovery point, so that the retention policy decides about it again.

    For example:

        perdure release app#12

    Args:
        point: The recovery point, as NAME#NUMBER.
        pool: Do it in the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    name, number = parse_point(point)
    with Session(common) as session:
        protected = session.protected(name, pool)
        protected.vault.release(protected.source.id, number)
    if common.json:
        print_json({"source": name, "number": number, "held": False})
    else:
        print_lines([f"Recovery point #{number} of {name!r} is no longer held."])
    return 0
