"""From what a person wrote after ``postgresql:`` to connections."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row

from perdure.model.errors import BadInput, SourceUnusable

__all__ = ["Sql", "connect", "is_near", "libpq_form", "normal_location", "server_sentence"]

Sql = psycopg.Connection[tuple[Any, ...]]

APPLICATION = "perdure"
_CONNECT_S = "15"
_SECRETS = ("password", "sslpassword", "scram_client_key", "scram_server_key")


def libpq_form(location: str) -> str:
    """The connection string for libpq.

    ``postgresql://user@host/db`` loses its first word when the location is split at the colon; ``//`` alone stands
    for the PG* variables.
    """
    return f"postgresql:{location}" if location.startswith("//") else location


def normal_location(location: str, connection: Sql) -> str:
    """A location that leads to the same server later, whatever the PG* variables say then.

    Raises:
        BadInput: It holds a password.
    """
    given = parsed(location)
    if secret := next((name for name in _SECRETS if given.get(name)), None):
        raise BadInput(
            f"the location holds a {secret}, which would be kept in the clear on this machine",
            code="password-in-location",
            hint="put it into ~/.pgpass or a connection service file and leave it out of the location",
        )
    if "service" not in given:
        info = connection.info
        given.setdefault("host", info.host)
        given.setdefault("port", info.port)
        given.setdefault("user", info.user)
        given.setdefault("dbname", info.dbname)
    order = ("service", "host", "port", "user", "dbname")
    names = [*(name for name in order if name in given), *sorted(set(given) - set(order))]
    return make_conninfo(**{name: given[name] for name in names})


def parsed(location: str) -> dict[str, Any]:
    """The parameters of a location.

    Raises:
        BadInput: libpq does not understand it.
    """
    try:
        return conninfo_to_dict(libpq_form(location))
    except psycopg.Error as error:
        raise BadInput(
            f"{location!r} does not say where a PostgreSQL server is: {server_sentence(error)}",
            code="bad-location",
            hint="write postgresql://USER@HOST:PORT/DATABASE, postgresql:service=NAME, or postgresql:// "
            "to take the PG* variables",
        ) from error


def is_near(connection: Sql) -> bool:
    """Whether the server may be on this machine, so that its data directory could be seen."""
    host = connection.info.host
    if not host or host.startswith("/"):
        return True
    # An address of this machine can be bound to.
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return True
    return False


def connect(location: str, **more: str) -> Sql:
    """An autocommitting connection for SQL.

    Raises:
        SourceUnusable: There is no connection to be had.
    """
    try:
        return psycopg.connect(conninfo(location, **more), autocommit=True, row_factory=tuple_row)
    except psycopg.Error as error:
        raise SourceUnusable(
            f"the PostgreSQL server at {shown(location)} cannot be reached: {server_sentence(error)}",
            code="server-unreachable",
            hint="check that it runs, the address, and pg_hba.conf; passwords belong into ~/.pgpass",
        ) from error


def conninfo(location: str, **more: str) -> str:
    """A complete connection string."""
    given = parsed(location)
    defaults = {"application_name": APPLICATION, "connect_timeout": _CONNECT_S}
    if "," in str(given.get("host") or given.get("hostaddr") or ""):
        # Of several copies the primary is followed, whichever that is.
        defaults["target_session_attrs"] = "read-write"
    return make_conninfo(**{**defaults, **given, **more})


def shown(location: str) -> str:
    """A location without secrets."""
    try:
        given = parsed(location)
    except BadInput:
        return repr(location)
    known = {name: value for name, value in given.items() if name not in _SECRETS}
    return make_conninfo(**known) or "the PG* variables' address"


def server_sentence(error: BaseException) -> str:
    """The server's or libpq's words on one line."""
    return " ".join(str(error).split()) or type(error).__name__
