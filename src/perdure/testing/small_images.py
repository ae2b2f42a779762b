"""Tiny images in a pool, and reading them back, for tests of the repository."""

from __future__ import annotations

import time

from perdure.model.extents import build
from perdure.model.points import DataSource, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.repository.pool import Pool

__all__ = ["MAIL", "image_content", "put_image"]

MAIL = DataSource(id="5" * 32, name="mail", workload="sqlite", location="/srv/mail.db")


def put_image(
    pool: Pool, blocks: list[bytes], position: Position, *, source: str = MAIL.id, time_ns: int | None = None
) -> RecoveryPoint:
    """Commit a point whose one file is these blocks in order, each a chunk of its own."""
    capture = pool.capture(source)
    try:
        at, pieces = 0, []
        for block in blocks:
            pieces.append((at, len(block), capture.put(block), 0))
            at += len(block)
        file = ImageFile("database", at, 4096, capture.put_map(build(at, pieces)))
        moment = time.time_ns() if time_ns is None else time_ns
        return capture.commit(
            RecoveryPoint(0, source, PointKind.EXPRESS_FULL, moment, position, b"c", (file,), cause="test")
        )
    except BaseException:
        capture.abort()
        raise


def image_content(pool: Pool, point: RecoveryPoint) -> bytes:
    """The file of a point made by :func:`put_image`."""
    extents = pool.image_map(point.files[0])
    chunks = dict(pool.read_chunks(extents.ids()))
    return b"".join(chunks[chunk][start : start + n] for _, n, chunk, start in extents.extents.tolist())
