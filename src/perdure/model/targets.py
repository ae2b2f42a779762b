"""Targets of a recovery: the latest state, a moment, a recovery point or a log position."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from perdure.model.errors import BadInput
from perdure.model.positions import Position

__all__ = ["AtPlace", "AtPoint", "AtPosition", "AtTime", "Latest", "Target", "parse_target"]

_POINT = re.compile(r"#?([0-9]{1,40})")
_POSITION = re.compile(r"[0-9]{1,40}:[0-9]{1,40}")
_PLACE = re.compile(r"(lsn|xid|name):(.+)")
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9})\d*)?)?\s*(Z|z|[+-]\d\d:?\d\d)?")

_LONGEST = 100
"""No phrase for a moment is longer."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The last state that can be recovered."""


@dataclass(frozen=True, slots=True)
class AtTime:
    """The last state at or before a moment, nanoseconds since 1970 UTC."""

    time_ns: int


@dataclass(frozen=True, slots=True)
class AtPoint:
    """One recovery-point record by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class AtPosition:
    """The last transaction at or before a log position."""

    position: Position


@dataclass(frozen=True, slots=True)
class AtPlace:
    """A place of the log in the engine's own words.

    Args:
        kind: ``lsn``, ``xid`` or ``name`` (a restore point).
        text: Which.
    """

    kind: str
    text: str


Target = Latest | AtTime | AtPoint | AtPosition | AtPlace


def parse_target(text: str, now_ns: int) -> Target:
    """Understand what a person wrote after ``--to``.

    Args:
        text: ``latest``; a point number (``12`` or ``#12``); a position (``3:1042``); an RFC 3339 time, local
            when it has no offset; a phrase such as ``10 minutes ago``; or a place of a PostgreSQL log (``0/3000148``,
            ``xid:1234``, ``name:RESTOREPOINT``).
        now_ns: The present, nanoseconds since 1970 UTC, for relative times.

    Raises:
        BadInput: It is none of these.
    """
    text = text.strip()
    if text.lower() == "latest":
        return Latest()
    if (match := _POINT.fullmatch(text)) is not None:
        return AtPoint(int(match[1]))
    if (match := _PLACE.fullmatch(text)) is not None:
        return AtPlace(match[1], match[2].strip())
    if _LSN.fullmatch(text):
        return AtPlace("lsn", text)
    if _POSITION.fullmatch(text):
        return AtPosition(Position.parse(text))
    if (match := _ISO.fullmatch(text)) is not None:
        return AtTime(_iso_ns(text, match))
    # A parser of phrases takes 1:2:3 or -5 for a moment; a slip must not recover the wrong one.
    if len(text) > _LONGEST or not any(letter.isalpha() for letter in text):
        raise _not_understood(text)
    return AtTime(_phrase_ns(text, now_ns))


def _iso_ns(text: str, match: re.Match[str]) -> int:
    day, minute, second, fraction, zone = match.groups()
    plain = f"{day}T{minute or '00:00'}{second or ':00'}"
    try:
        moment = datetime.fromisoformat(plain + ((zone or "").upper().replace("Z", "+00:00")))
    except ValueError as error:
        raise _not_understood(text) from error
    return _whole_seconds_ns(moment) + int((fraction or "0").ljust(9, "0"))


def _phrase_ns(text: str, now_ns: int) -> int:
    import dateparser  # noqa: PLC0415 - it takes a tenth of a second to import, and few commands need it

    local_now = datetime.fromtimestamp(now_ns / 1e9, UTC).astimezone().replace(tzinfo=None)
    moment = dateparser.parse(text, settings={"RELATIVE_BASE": local_now, "PREFER_DATES_FROM": "past"})
    if moment is None:
        raise _not_understood(text)
    return _whole_seconds_ns(moment) + int(moment.microsecond) * 1000


def _whole_seconds_ns(moment: datetime) -> int:
    # A naive moment is local time; astimezone() reads it as such.
    try:
        return int(moment.replace(microsecond=0).astimezone(UTC).timestamp()) * 10**9
    except (ValueError, OverflowError):
        # At the borders of the calendar another time zone would lie outside it.
        return int(moment.replace(microsecond=0, tzinfo=UTC).timestamp()) * 10**9


def _not_understood(text: str) -> BadInput:
    return BadInput(
        f"{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'!r} is not a target that perdure understands",
        code="bad-target",
        hint="write latest, a point number, a position like 3:1042, an RFC 3339 time, or '10 minutes ago'",
    )
