"""``perdure wal-fetch``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.session import Session
from perdure.model.errors import BadInput, NotFound
from perdure.model.positions import Position
from perdure.protection.home import Home

__all__ = ["wal_fetch"]


def wal_fetch(
    name: str,
    file: str,
    path: Path,
    /,
    *,
    upto: str | None = None,
    pool: str | None = None,
    spool: Path | None = None,
    ahead: int = 8,
    absent_status: int = 1,
    prefetch: Annotated[bool, Parameter(show=False)] = False,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Fetch a WAL file or a timeline's history from the pool: PostgreSQL's restore_command.

    The exit status is 0 when the file is there, 1 when the log in the pool does not have it, so that recovery ends or
    a standby waits, and 200 for every error: the server then stops, rather than that it takes an error for the end of
    the log. 'perdure recover --fetch-wal' and '--standby' write the whole command.

    For example:

        restore_command = 'perdure wal-fetch main %f "%p" --passphrase-file /etc/perdure/key'

    Args:
        name: The data source.
        file: The file's name, %f.
        path: Where it goes, %p.
        upto: Where the log ends for this server, as a position; at its end in the pool unless given.
        pool: Fetch from the pool at this path, and remember nothing on this machine.
        spool: The directory for files fetched ahead; perdure-spool beside the target file unless given.
        ahead: How many files are fetched ahead; 0 for none.
        absent_status: The exit status for a file that does not exist.
    """
    from perdure.protection.log_serving import serve_log
    from perdure.protection.log_spool import LogSpool

    if not 0 <= ahead <= 1000:
        raise BadInput(f"{ahead} is no number of files", code="bad-limit", hint="give --ahead between 0 and 1000")
    end = None if upto is None else Position.parse(upto)
    place = (path.parent / "perdure-spool" if spool is None else spool).absolute()
    kept = LogSpool(place, ahead)
    if not prefetch and kept.take(file, path):
        return 0
    with Session(common, _home(pool, place)) as session:
        files = serve_log(session.protected(name, pool), file, end)
        try:
            found = next(files)
            if prefetch:
                kept.fill(files)
                return 0
        except NotFound as error:
            if error.code not in ("wal-not-found", "wal-not-kept"):
                raise
            return absent_status
        if end is None and not found.whole and kept.is_surpassed(found, path.with_name(file)):
            return absent_status
        path.write_bytes(found.content)
    if found.whole and "." not in file and kept.wanted:
        words = [name, file, str(path.absolute()), "--spool", str(place), "--ahead", str(ahead)]
        named = {"--pool": pool, "--upto": upto, "--passphrase-file": common.passphrase_file}
        _fetch_ahead([*words, *(str(word) for pair in named.items() if pair[1] is not None for word in pair)])
    return 0


def _home(pool: str | None, spool: Path) -> Home | None:
    """The server's user need not have a home of perdure's: with a pool named, only a cache is needed."""
    return None if pool is None else Home(spool / ".home")


def _fetch_ahead(words: Sequence[str]) -> None:
    """Another process goes on, while the server replays this file."""
    subprocess.Popen(
        [sys.executable, "-P", "-m", "perdure", "wal-fetch", *words, "--prefetch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
