"""``perdure browse``."""

from __future__ import annotations

import time
from pathlib import Path

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.sentences import notes_lines
from perdure.cli.session import Session
from perdure.cli.wording import size, table
from perdure.model.moments import moment_text
from perdure.model.targets import parse_target

__all__ = ["browse"]


def browse(
    name: str,
    path: str = "",
    /,
    *,
    to: str = "latest",
    scratch: Path | None = None,
    pool: str | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """List what a recovery point holds: the entries of a folder, the tables of a database.

    A database is recovered to a temporary copy to be listed, which takes room and time.

    For example:

        perdure browse share reports/2026 --to yesterday
        perdure browse main shop.public --to '10 minutes ago'
        perdure browse app --to '#12'

    Args:
        name: The data source.
        path: The folder, or of a PostgreSQL cluster the DATABASE or DATABASE.SCHEMA, to list; the top unless given.
        to: The moment, written as for recover; latest unless given.
        scratch: The directory for the temporary copy.
        pool: Look into the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    from perdure.protection import browse as browsing

    moment = parse_target(to, time.time_ns())
    with Session(common) as session:
        protected = session.protected(name, pool)
        with progress_bar(common) as progress:
            found = browsing.browse(
                protected, to=moment, path=path, scratch=scratch and scratch.absolute(), progress=progress
            )
    if common.json:
        print_json({"source": protected.source.name, **plain(found)})
        return 0
    rows = [
        (item.name, item.kind, size(item.size) if item.kind == "file" else "", item.details) for item in found.items
    ]
    position = "" if found.position is None else f", position {found.position}"
    print_lines(
        [
            f"{protected.source.name} at {moment_text(found.time_ns)}{position}:",
            *table(("NAME", "KIND", "SIZE", ""), rows, right=(2,)),
            *notes_lines(found.notes),
        ]
    )
    return 0
