"""Taking an image from the data directory with the low-level backup functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import psycopg

from perdure.model.errors import SourceUnusable
from perdure.workloads.contract import BaseImage, Image
from perdure.workloads.postgresql.cluster import Cluster
from perdure.workloads.postgresql.connecting import Sql, connect, server_sentence
from perdure.workloads.postgresql.drafting import Draft, Files, LogHolder, Stopped, changes_since
from perdure.workloads.postgresql.earlier_wal import Beginning, spool_earlier
from perdure.workloads.postgresql.following import Follower
from perdure.workloads.postgresql.lsn import history_name, parse_lsn
from perdure.workloads.postgresql.scanning import CONTROL

__all__ = ["local_image", "while_answering"]

_Result = TypeVar("_Result")

_ANSWER_S = 1.0


@contextlib.contextmanager
def local_image(
    location: str, data: Path, cluster: Cluster, log: LogHolder, *, base: BaseImage | None, durable: bool
) -> Iterator[Image]:
    """An image of a running cluster; the backup ends when its listing is asked for, or with the context.

    Args:
        location: Where the server is.
        data: Its data directory.
        cluster: What it is.
        log: The session.
        base: The image that this one builds on.
        durable: Whether the log is shipped meanwhile, so that all before the image's end has to be in the pool first.

    Raises:
        SourceUnusable: The server refuses, or ends.
    """
    with contextlib.ExitStack() as held:
        # A connection of its own: the backup belongs to it.
        sql = held.enter_context(connect(location, options="-c statement_timeout=0 -c idle_session_timeout=0"))
        start = parse_lsn(while_answering(log.follower, lambda: _start(sql)))
        timeline = log.follower.pending.token.timeline
        beginning = Beginning(location, timeline, start, cluster.number("wal_segment_size"), data / "pg_wal")
        reached = log.follower.received
        spool = while_answering(log.follower, lambda: spool_earlier(beginning, reached))
        held.callback(spool.close)
        log.follower.attach(spool)
        held.callback(log.follower.detach, spool)
        # What the WAL up to here changes is known then: from the pool what is shipped, from memory the rest.
        log.follower.catch_up(start)
        status = data.stat()
        files = Files(
            data,
            outside=_outside(data, cluster),
            bin=_programs(data),
            owner=(status.st_uid, status.st_gid),
            history=_history(data, timeline),
        )
        draft = Draft(files, cluster, start=start, log=log, spool=spool, stop=lambda: _stop(sql, data), durable=durable)
        yield while_answering(log.follower, lambda: draft.image(base, changes_since(base, log.follower)))


def _start(sql: Sql) -> str:
    row = sql.execute("SELECT pg_backup_start(%s, fast => true)", ("perdure express full",)).fetchall()[0]
    return str(row[0])


def while_answering(follower: Follower, work: Callable[[], _Result]) -> _Result:
    """Do work in another thread, while this one tells the server that the stream is still wanted."""
    with ThreadPoolExecutor(1, thread_name_prefix="backup") as beside:
        future = beside.submit(work)
        while not wait([future], timeout=_ANSWER_S).done:
            follower.keep_alive()
        return future.result()


def _stop(sql: Sql, data: Path) -> Stopped:
    control = _stable(data / CONTROL)
    try:
        lsn, label, spaces = sql.execute("SELECT * FROM pg_backup_stop(wait_for_archive => false)").fetchall()[0]
        (now_us,) = sql.execute("SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint").fetchall()[0]
    except psycopg.Error as error:
        raise SourceUnusable(f"the server ended the backup: {server_sentence(error)}", code="server-gone") from error
    exact = "BACKUP FROM: standby" not in label
    return Stopped(control, parse_lsn(lsn), label, spaces or "", int(now_us) * 1000, exact)


def _outside(data: Path, cluster: Cluster) -> dict[str, bytes]:
    """Configuration files elsewhere, as Debian has them."""
    found: dict[str, bytes] = {}
    for setting, name in (
        ("config_file", "postgresql.conf"),
        ("hba_file", "pg_hba.conf"),
        ("ident_file", "pg_ident.conf"),
    ):
        named = cluster.settings.get(setting)
        if named and Path(named).parent.resolve() != data.resolve():
            with contextlib.suppress(OSError):
                found[name] = Path(named).read_bytes()
    return found


def _history(data: Path, timeline: int) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return (data / "pg_wal" / history_name(timeline)).read_bytes()
    return b""


def _stable(path: Path) -> bytes:
    """A small file that may be written at any moment: read until two looks agree."""
    seen = path.read_bytes()
    while (again := path.read_bytes()) != seen:
        seen = again
    return seen


def _programs(data: Path) -> str:
    """The directory of the programs that run the server."""
    try:
        pid = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]
        return str(Path(f"/proc/{int(pid)}/exe").readlink().parent)
    except (OSError, ValueError, IndexError):
        return ""
