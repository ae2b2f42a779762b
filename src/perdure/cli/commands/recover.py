"""``perdure recover``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from perdure.cli.documents import plain
from perdure.cli.fetching import fetch_command
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.sentences import notes_lines
from perdure.cli.session import Session
from perdure.cli.wording import count, duration, rate, size
from perdure.model.errors import BadInput, Damaged, Refused
from perdure.model.moments import moment_text
from perdure.model.targets import parse_target

if TYPE_CHECKING:
    from perdure.protection.recovery import RecoveryReport

__all__ = ["recover"]


def recover(
    name: str,
    /,
    *,
    to: str,
    target: Path | None = None,
    item: Annotated[tuple[str, ...], Parameter(metavar="PATH")] = (),
    load: Annotated[str | None, Parameter(metavar="postgresql://…")] = None,
    into_schema: str | None = None,
    overwrite: bool = False,
    scratch: Path | None = None,
    in_place: bool = False,
    yes: bool = False,
    verify: Literal["quick", "thorough", "none"] = "quick",
    layout: Literal["alternate", "recovery-database"] | None = None,
    roll_forward: bool = False,
    clean: bool = False,
    port: int | None = None,
    start: bool = False,
    delta: bool = False,
    fetch_wal: bool = False,
    standby: bool = False,
    primary_conninfo: str | None = None,
    pool: str | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Bring a data source back to a moment of its timeline.

    It writes to --target, which must not exist yet, and checks the result by the engine's own means. It never writes
    onto the live source, unless --in-place and --yes are both given.

    For example:

        perdure recover app --to latest --target /srv/app-recovered.db
        perdure recover app --to '2026-03-01 14:05:00' --target /tmp/app.db
        perdure recover share --to '10 minutes ago' --target /tmp/share --item reports/2026
        perdure recover app --to '#12' --in-place --yes
        perdure recover main --to 0/5A3F120 --target /srv/main-recovered --port 5433 --start
        perdure recover main --to '10 minutes ago' --item shop.public.orders --target orders.dump
        perdure recover main --to '10 minutes ago' --item shop.public.orders --load postgresql:///shop --into-schema old
        perdure recover main --to '10 minutes ago' --target /var/lib/postgresql/18/main --delta --start
        perdure recover main --to latest --target /srv/standby --standby --primary-conninfo 'host=db1 user=replica'
        perdure recover mailboxes --to latest --target /srv/rdb --layout recovery-database --roll-forward

    Args:
        name: The data source.
        to: The moment, as latest, a time (RFC 3339, or a phrase such as '10 minutes ago'), a recovery point's number,
            a log position, or for PostgreSQL an LSN, xid:NUMBER or name:RESTOREPOINT.
        target: Where the recovered data goes.
        item: Recover only this file or folder inside the source, or of a PostgreSQL cluster this DATABASE,
            DATABASE.SCHEMA or DATABASE.SCHEMA.TABLE, as a file for pg_restore; may be given several times.
        load: Load the items into this running server and database instead of a file (PostgreSQL only).
        into_schema: Load tables into this schema there, so that they lie beside the present ones, without their owners
            and foreign keys.
        overwrite: Replace what the server has under the names of the items.
        scratch: The directory for the scratch copy that items of a PostgreSQL cluster are taken out of.
        in_place: Replace the source itself.
        yes: Confirm that the source itself is replaced, or with --delta that tablespaces elsewhere are overwritten.
        verify: How thoroughly a recovered database is checked by its engine's own means (quick unless given).
        layout: The form of the recovered folder: alternate, to be replayed in place, or recovery-database, with the
            commands to mount it printed (Exchange only).
        roll_forward: Add the log that survived in production and is newer than the pool's (Exchange only).
        clean: Replay the log here, to a database in clean shutdown that needs no log any more (Exchange only).
        port: The port of the recovered server; as in its configuration unless given (PostgreSQL only).
        start: Start the recovered server and wait until it takes writes (PostgreSQL only).
        delta: Recover onto the data directory --target, which has another state of this source and whose server is
            stopped: only pages that differ are written (PostgreSQL only).
        fetch_wal: Leave the log in the pool: the server fetches it with 'perdure wal-fetch' while it replays, instead
            of finding it in its directory (PostgreSQL only).
        standby: Make a standby that follows the pool, and its primary if --primary-conninfo names it (PostgreSQL only).
        primary_conninfo: How the standby connects to its primary.
        pool: Recover from the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    if (target is None) != (in_place or load is not None):
        raise BadInput(
            "a recovery goes to --target PATH, into a server with --load, or onto the source itself with --in-place",
            code="target-needed",
            hint="name a path that does not exist yet with --target",
        )
    if in_place and not yes:
        raise Refused(
            f"recovering {name!r} in place replaces the live source; nothing was changed",
            code="confirmation-needed",
            hint="if that is what you want, add --yes",
        )

    from perdure.protection import recovery

    options = {"layout": layout or "", "roll-forward": "yes" if roll_forward else "", "clean": "yes" if clean else ""}
    options |= {"port": "" if port is None else str(port), "start": "yes" if start else ""}
    options |= {
        "delta": "yes" if delta else "",
        "standby": "yes" if standby else "",
        "primary-conninfo": primary_conninfo or "",
    }
    options |= {"load": load or "", "into-schema": into_schema or "", "overwrite": "yes" if overwrite else ""}
    moment = parse_target(to, time.time_ns())
    with Session(common) as session:
        protected = session.protected(name, pool)
        if fetch_wal or standby:
            options["fetch-wal"] = fetch_command(session, protected)
        with progress_bar(common) as progress:
            report = recovery.recover(
                protected,
                to=moment,
                target=None if target is None else target.absolute(),
                in_place=in_place,
                yes=yes,
                items=item,
                verify=verify,
                options={key: value for key, value in options.items() if value},
                scratch=None if scratch is None else scratch.absolute(),
                progress=progress,
            )
    if common.json:
        print_json({"source": protected.source.name, **plain(report)})
    else:
        print_lines(_lines(protected.source.name, report))
    whole = report.verification is None or report.verification.passed
    return 0 if whole else Damaged.exit_status


def _lines(name: str, report: RecoveryReport) -> list[str]:
    position = "" if report.position is None else f", position {report.position}"
    took = duration(report.seconds)
    speed = rate(report.bytes, report.seconds)
    wrote = f"{size(report.bytes)} in {took} ({speed})" if report.paths else f"It took {took}"
    lines = [
        f"Recovered {name!r} as it was at {moment_text(report.time_ns)}{position}.",
        *(f"  {path}" for path in report.paths),
        f"{wrote}, from recovery point #{report.point.number}.",
    ]
    if report.verification is None:
        lines.append("It was not verified.")
    elif report.verification.passed:
        lines.append(f"Verified by {report.verification.means}.")
    else:
        damaged = count(len(report.verification.details), "thing")
        lines.append(f"DAMAGED: {damaged} could not be recovered whole and was left out; the rest is whole.")
        lines += [f"  {detail}" for detail in report.verification.details]
    return lines + notes_lines(report.notes)
