"""An image over the replication protocol alone, for data directories that cannot be seen from here and for standbys."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray

from perdure.model.errors import SourceUnusable
from perdure.model.positions import Position
from perdure.workloads.contract import BaseImage, Image, ImageReader
from perdure.workloads.postgresql.backup import while_answering
from perdure.workloads.postgresql.base_backup import BaseBackup, Unpacked
from perdure.workloads.postgresql.changes import is_tracked
from perdure.workloads.postgresql.cluster import Cluster
from perdure.workloads.postgresql.connecting import connect, server_sentence
from perdure.workloads.postgresql.drafting import Draft, Files, LogHolder, Stopped, changes_since
from perdure.workloads.postgresql.earlier_wal import Beginning, spool_earlier
from perdure.workloads.postgresql.image import ClusterImage
from perdure.workloads.postgresql.listing import LISTING, decode_listing
from perdure.workloads.postgresql.manifest import manifest_of
from perdure.workloads.postgresql.replication import Refusal, Replication
from perdure.workloads.postgresql.scanning import CONTROL

__all__ = ["remote_image"]

_FIRST_INCREMENTAL = 17
_FROM_STANDBY = "BACKUP FROM: standby"
_INCREMENTAL_LINES = "INCREMENTAL FROM"


@contextlib.contextmanager
def remote_image(
    location: str, cluster: Cluster, log: LogHolder, *, base: BaseImage | None, durable: bool
) -> Iterator[Image]:
    """An image as BASE_BACKUP sends it; it is received when its files are asked for.

    Args:
        location: The server that sends it, a primary or a standby.
        cluster: What it is.
        log: The session.
        base: The image that this one builds on; where the server can, only what changed since is sent.
        durable: Whether the log is shipped meanwhile, so that all before the image's end has to be in the pool first.

    Raises:
        SourceUnusable: The server refuses, or ends.
    """
    with contextlib.ExitStack() as held:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="perdure-image-")))
        backup = while_answering(log.follower, lambda: _begin(location, cluster, base))
        held.callback(backup.close)
        beginning = Beginning(location, backup.timeline, backup.start, cluster.number("wal_segment_size"))
        reached = log.follower.received
        spool = while_answering(log.follower, lambda: spool_earlier(beginning, reached))
        held.callback(spool.close)
        log.follower.attach(spool)
        held.callback(log.follower.detach, spool)
        log.follower.catch_up(backup.start)
        # Now: when the files are asked for, log is being shipped.
        changes = while_answering(log.follower, lambda: changes_since(base, log.follower))
        timeline = log.follower.pending.token.timeline
        history = while_answering(log.follower, lambda: _history(location, timeline))

        def make() -> ClusterImage:
            unpacked = backup.unpack(scratch)
            stopped = _stopped(location, unpacked)
            files = Files(unpacked.directory, unpacked.blocks, owner=unpacked.owner, history=history)
            draft = Draft(
                files, cluster, start=backup.start, log=log, spool=spool, stop=lambda: stopped, durable=durable
            )
            return draft.image(base, changes)

        yield _LateImage(make)


def _begin(location: str, cluster: Cluster, base: BaseImage | None) -> BaseBackup:
    """Begin a backup: incrementally where the server can and nobody will read more than what changed."""
    if base is not None and base.tracked and not base.whole and cluster.major >= _FIRST_INCREMENTAL:
        before = decode_listing(base.content(LISTING))
        if before.checksums != (cluster.settings.get("data_checksums") == "on"):
            # pg_checksums changed every page, and logged nothing.
            return BaseBackup(location)
        # Of maps not every change is in the WAL: what the manifest does not name is sent whole.
        manifest = manifest_of(before, [file for file in before.files if is_tracked(file.path)])
        with contextlib.suppress(Refusal):
            return BaseBackup(location, manifest)
    return BaseBackup(location)


def _history(location: str, timeline: int) -> bytes:
    with contextlib.closing(Replication(location)) as replication:
        return replication.history(timeline)[1]


def _stopped(location: str, unpacked: Unpacked) -> Stopped:
    lines = unpacked.take("backup_label").decode().splitlines(keepends=True)
    # In the pool the image is whole.
    label = "".join(line for line in lines if not line.startswith(_INCREMENTAL_LINES))
    spaces = unpacked.take("tablespace_map").decode()
    control = (unpacked.directory / CONTROL).read_bytes()
    try:
        with connect(location) as sql:
            (now_us,) = sql.execute("SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint").fetchall()[0]
    except psycopg.Error as error:
        raise SourceUnusable(f"the server does not answer: {server_sentence(error)}", code="server-gone") from error
    return Stopped(control, unpacked.stop, label, spaces, int(now_us) * 1000, _FROM_STANDBY not in label)


class _LateImage:
    """An image that is made when somebody looks at it first; implements ``Image`` and ``MovingImage``."""

    def __init__(self, make: Callable[[], ClusterImage]) -> None:
        self._make = make
        self._made: ClusterImage | None = None
        self._guard = threading.Lock()

    @property
    def _image(self) -> ClusterImage:
        with self._guard:
            if self._made is None:
                self._made = self._make()
            return self._made

    @property
    def files(self) -> Sequence[ImageReader]:
        return self._image.files

    @property
    def position(self) -> Position:
        return self._image.position

    @property
    def chain(self) -> bytes:
        return self._image.chain

    @property
    def time_ns(self) -> int:
        return self._image.time_ns

    @property
    def notes(self) -> tuple[str, ...]:
        return self._image.notes

    def unexplained(self, name: str, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._image.unexplained(name, pages)
