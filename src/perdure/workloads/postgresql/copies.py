"""A primary and its standbys, which are one data source with copies: images are better taken from a standby."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
from psycopg.conninfo import make_conninfo

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.connecting import connect, parsed
from perdure.workloads.postgresql.lsn import parse_lsn

__all__ = ["standby_among"]

_CONNECT_S = "5"
_CATCH_UP_S = 5.0


def standby_among(location: str, system: str, reached: int) -> str | None:
    """A standby among the hosts of a location that can give an image.

    Args:
        location: A location that names several hosts.
        system: The cluster's system identifier; another cluster's standby is none.
        reached: LSN that it has to have replayed: nothing in an image may be older than the image before.

    Returns:
        Its own location; ``None`` if there is none, or none that keeps up.
    """
    for each in _single_hosts(location):
        with contextlib.suppress(SourceUnusable, psycopg.Error):
            if _serves(each, system, reached):
                return each
    return None


def _single_hosts(location: str) -> Iterator[str]:
    given = parsed(location)
    hosts = str(given.get("host") or given.get("hostaddr") or "").split(",")
    ports = str(given.get("port") or "").split(",")
    if len(hosts) < 2:
        return
    for number, host in enumerate(hosts):
        port = ports[number] if len(ports) == len(hosts) else ports[0]
        one = {**given, "host": host, "port": port or None, "target_session_attrs": "any"}
        one.pop("hostaddr", None)
        yield make_conninfo(**{name: value for name, value in one.items() if value is not None})


def _serves(location: str, system: str, reached: int) -> bool:
    with connect(location, connect_timeout=_CONNECT_S) as sql:
        own = sql.execute("SELECT system_identifier::text, pg_is_in_recovery() FROM pg_control_system()").fetchall()[0]
        if own != (system, True):
            return False
        deadline = time.monotonic() + _CATCH_UP_S
        while True:
            replayed = sql.execute("SELECT pg_last_wal_replay_lsn()::text").fetchall()[0][0]
            if replayed is not None and parse_lsn(replayed) >= reached:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
