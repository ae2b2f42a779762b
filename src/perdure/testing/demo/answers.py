"""perdure's JSON answers as values: the only module of the demo that knows their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.model.positions import Position
from perdure.model.targets import AtTime, parse_target
from perdure.testing.demo.failing import DemoFailed

__all__ = ["LOG", "Place", "PointAnswer", "Shipment", "commits", "full_points", "point", "shipments"]

LOG = "log"
EXPRESS_FULL = "express full"


@dataclass(frozen=True, slots=True)
class PointAnswer:
    """A recovery point that was made.

    Args:
        number: Its number.
        position: Where it lies in the log.
        cause: Why it was made.
        size: Bytes protected by it.
        changed: Bytes that had changed.
        stored: Bytes added to the pool.
        read: Bytes read from the source.
        seconds: How long it took; 0 when the answer does not say.
    """

    number: int
    position: Position
    cause: str
    size: int
    changed: int
    stored: int
    read: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Shipment:
    """Log that watch made durable: everything up to ``last``, at ``durable_ns``."""

    last: Position
    durable_ns: int


@dataclass(frozen=True, slots=True)
class Place:
    """A commit as the timeline lists it: its position, and the time that perdure knows it by."""

    position: Position
    time_ns: int


def point(document: Mapping[str, Any], seconds: float = 0.0) -> PointAnswer:
    """Read the description of one recovery point."""
    return PointAnswer(
        document["number"],
        Position.parse(document["position"]),
        document["cause"],
        document["size"],
        document["changed"],
        document["stored"],
        document["read"],
        seconds,
    )


def full_points(events: Iterable[Mapping[str, Any]]) -> list[PointAnswer]:
    """The express fulls that watch reported, each with the time from the frozen image to the durable record."""
    return [
        point(event["point"], (nanoseconds(event["time"]) - nanoseconds(event["point"]["time"])) / 1e9)
        for event in events
        if event["kind"] == EXPRESS_FULL
    ]


def shipments(events: Iterable[Mapping[str, Any]]) -> list[Shipment]:
    """The log that watch reported as durable, in order."""
    return [
        Shipment(Position.parse(event["position"]), nanoseconds(event["durable"]))
        for event in events
        if event["kind"] == LOG and event["position"] is not None
    ]


def commits(document: Mapping[str, Any]) -> list[Place]:
    """The commits that ``points --commits`` lists since the log was last broken, each once, in position order."""
    rows = document["points"]
    images = [Position.parse(row["position"]) for row in rows if row["number"] is not None and _begins_anew(row)]
    since = max(images, default=Position(0, 0))
    places = {Position.parse(row["position"]): nanoseconds(row["time"]) for row in rows if row["number"] is None}
    return [Place(position, places[position]) for position in sorted(places) if position > since]


def _begins_anew(row: Mapping[str, Any]) -> bool:
    return bool(row["cause"].startswith(("first replica", "tracking lost")))


def nanoseconds(text: str) -> int:
    """An RFC 3339 time as nanoseconds since 1970 UTC."""
    target = parse_target(text, 0)
    if not isinstance(target, AtTime):
        raise DemoFailed(f"perdure answered {text!r} where a time was expected")
    return target.time_ns
