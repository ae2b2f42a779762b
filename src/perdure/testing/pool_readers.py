"""What a pool shows, as labels and fingerprints: the readers of :mod:`perdure.testing.pool_history`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.entries import EntryKind
from perdure.model.extents import HOLE
from perdure.model.listings import content_pieces, load_root, read_listing
from perdure.model.points import ImageFile, RecoveryPoint
from perdure.model.retention import RetentionPolicy
from perdure.repository.pool import Pool
from perdure.testing.history import Disagreement

__all__ = [
    "fingerprint",
    "marks_text",
    "read_holds",
    "read_logs",
    "read_points",
    "read_policies",
    "read_sources",
]


def fingerprint(*parts: object) -> str:
    """A fingerprint of content."""
    texts = [part if isinstance(part, bytes) else repr(part).encode() for part in parts]
    return blake3(b"".join(len(text).to_bytes(8, "little") + text for text in texts)).hexdigest()[:16]


def marks_text(marks: NDArray[np.void]) -> str:
    """The recoverable places of a segment, to compare."""
    return repr(marks.tolist())


def read_sources(pool: Pool) -> dict[str, str]:
    """Every registered source."""
    return {f"source {source.name}": fingerprint(source.location) for source in pool.sources()}


def read_points(pool: Pool) -> dict[str, str]:
    """Every record, with everything of its image or tree. Records of one cause must agree."""
    found: dict[str, str] = {}
    for source in pool.sources():
        for point in pool.points(source.id):
            label = f"point {source.name}/{point.cause}"
            mark = _point_content(pool, point)
            if found.setdefault(label, mark) != mark:
                raise Disagreement(f"two contents of {label}")
    return found


def read_logs(pool: Pool) -> dict[str, str]:
    """Every log segment, with its payload."""
    found = {}
    for source in pool.sources():
        for span in pool.spans(source.id):
            segment = pool.segment(source.id, span)
            found[f"log {source.name}/{segment.after} to {segment.last}"] = fingerprint(
                segment.chain, segment.index, marks_text(segment.marks), *pool.blocks(source.id, span)
            )
    return found


def read_holds(pool: Pool) -> dict[str, str]:
    """Every hold, by its reason."""
    return {f"hold {hold.reason}": "" for source in pool.sources() for hold in pool.holds(source.id)}


def read_policies(pool: Pool) -> dict[str, str]:
    """Every retention policy that is not the default."""
    policies = {source.name: pool.policy(source.id) for source in pool.sources()}
    return {f"policy {name}": repr(policy) for name, policy in policies.items() if policy != RetentionPolicy()}


def _point_content(pool: Pool, point: RecoveryPoint) -> str:
    if point.tree is not None:
        return fingerprint(*sorted(_tree_content(pool, point)))
    return fingerprint(point.position, point.chain, *(_file_content(pool, file) for file in point.files))


def _file_content(pool: Pool, file: ImageFile) -> bytes:
    extents = pool.image_map(file)
    texts = dict(pool.read_chunks(extents.ids()))
    content = bytearray(extents.size)
    for offset, length, chunk, start in extents.extents.tolist():
        if chunk != HOLE:
            content[offset : offset + length] = texts[chunk][start : start + length]
    return bytes(content)


def _tree_content(pool: Pool, point: RecoveryPoint) -> Iterator[tuple[bytes, bytes]]:
    """Path and content of every file and link."""
    assert point.tree is not None
    waiting = [(b"", load_root(point.tree, pool))]
    while waiting:
        above, directory = waiting.pop()
        for entry in read_listing(directory, pool):
            if entry.kind is EntryKind.DIRECTORY:
                waiting.append((above + entry.name + b"/", entry))
            else:
                pieces = content_pieces(entry, pool) if entry.kind is EntryKind.FILE else ()
                parts = (pool.read_chunk(piece.chunk)[piece.start :][: piece.length] for piece in pieces)
                yield above + entry.name, b"".join(parts) or entry.target
