"""``perdure watch``."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perdure.cli.commands.gc import collection_lines
from perdure.cli.documents import point_document
from perdure.cli.intervals import seconds_of
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines, remark
from perdure.cli.session import Session
from perdure.cli.wording import count, duration, size
from perdure.model.errors import NotFound
from perdure.model.moments import moment_text, rfc3339

if TYPE_CHECKING:
    from perdure.protection.protected import Protected
    from perdure.protection.vault import Vault
    from perdure.protection.watch_events import WatchEvent

__all__ = ["event_document", "watch", "watch_until_stopped"]

_SAME_SIGNAL_S = 2.0


def watch(
    *names: Annotated[str, Parameter(metavar="NAME")],
    ship_every: str = "200ms",
    express_full_every: str | None = None,
    file_point_every: str = "15min",
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Protect data sources continuously until stopped.

    It ships the log as it is written, and makes express fulls and file recovery points on schedule. It ends on SIGINT
    (Ctrl-C) and SIGTERM as soon as everything that was acknowledged is durable. Once a day it prunes the data sources
    that have a retention range, as perdure prune does. With --json it prints one document per event.

    For example:

        perdure watch
        perdure watch app share --express-full-every 1h

    Args:
        names: The data sources; without any, all that are protected on this machine.
        ship_every: How long a committed transaction waits for others before it is shipped (200ms unless given).
        express_full_every: The time between two express fulls of a database; without it, what was given to protect,
            else an hour.
        file_point_every: The time between two recovery points of a folder (15min unless given).
    """
    ship_every_ms = seconds_of(ship_every, "--ship-every") * 1000
    full_s = None if express_full_every is None else seconds_of(express_full_every, "--express-full-every")
    point_s = seconds_of(file_point_every, "--file-point-every")
    with Session(common) as session:
        known = [session.home.find_source(name) for name in dict.fromkeys(names)] or session.home.sources()
        if not known:
            raise NotFound(
                "no data source is protected on this machine",
                code="nothing-protected",
                hint="begin with: perdure protect sqlite:PATH --pool PATH",
            )

        sources = [session.protected_source(source) for source in known]
        watch_until_stopped(
            sources,
            common,
            ship_every_ms=ship_every_ms,
            express_full_every_s=full_s,
            file_point_every_s=point_s,
        )
    return 0


def watch_until_stopped(sources: list[Protected], common: CommonOptions, **schedule: float | None) -> None:
    """Watch, telling of every event, until SIGINT or SIGTERM."""
    from perdure.protection import watch as watching

    given: dict[str, Any] = {key: value for key, value in schedule.items() if value is not None}
    if not common.json:
        remark(f"watching {', '.join(protected.source.name for protected in sources)}; stop with Ctrl-C")
    with _stopped_by_signals() as stop:
        on_event = _print_document if common.json else _print_line
        watching.watch(sources, stop=stop, on_event=on_event, collect=_collect, **given)
    remark("stopped; everything that was acknowledged is durable")


def _collect(vault: Vault, *, at_once: bool) -> list[str]:
    from perdure.repository.gc import GRACE_S, Collection, collect_garbage
    from perdure.repository.pool import Pool

    assert isinstance(vault, Pool)
    done = collect_garbage(vault, grace_s=0.0 if at_once else GRACE_S)
    return [] if done == Collection(points=done.points) else collection_lines(done)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT, seconds later, interrupts at once.

    Wrappers such as timeout(1) and make(1) pass on a signal that the terminal has sent already.
    """
    stop = threading.Event()
    asked_at = 0.0

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        if stop.is_set():
            if number == signal.SIGINT and time.monotonic() - asked_at > _SAME_SIGNAL_S:
                raise KeyboardInterrupt
            return
        stop.set()
        asked_at = time.monotonic()
        remark("stopping; what is being written will be durable first")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_document(event: WatchEvent) -> None:
    print_json(event_document(event))


def event_document(event: WatchEvent) -> dict[str, Any]:
    """An event as a JSON document; ``lag_ms`` tells of the transactions that this event made durable."""
    lags = sorted(lag / 1e6 for lag in event.lags_ns)
    return {
        "time": rfc3339(event.time_ns),
        "source": event.source,
        "kind": event.kind.value,
        "commits": event.commits,
        "bytes": event.bytes,
        "position": None if event.position is None else str(event.position),
        "durable": rfc3339(event.durable_ns) if event.durable_ns else None,
        "lag_ms": {"p50": lags[len(lags) // 2], "p99": lags[len(lags) * 99 // 100], "max": lags[-1]} if lags else None,
        "message": event.message,
        "point": None if event.point is None else point_document(event.point),
    }


def _print_line(event: WatchEvent) -> None:
    print_lines([f"{moment_text(event.time_ns)}  {event.source}  {_what(event)}"])


def _what(event: WatchEvent) -> str:
    if event.point is not None:
        what = (
            f"{event.kind.value} #{event.point.number}: {size(event.point.changed)} changed, {size(event.bytes)} stored"
        )
        return what + (f" ({event.message})" if event.message else "")
    if event.position is not None:
        shipped = f"log: {count(event.commits, 'transaction')} ({size(event.bytes)}) durable up to {event.position}"
        return shipped + (f", {duration(event.lag_ms / 1000)} behind" if event.lag_ms else "")
    return f"{event.kind.value}: {event.message}"
