"""Writing an image's files from its extent maps: every chunk is decoded once, holes stay holes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.model.extents import HOLE, ExtentMap
from perdure.model.logs import StoredSegment
from perdure.model.points import ImageFile
from perdure.model.timeline import RecoveryPlan
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected, image_workload
from perdure.protection.vault import Vault
from perdure.workloads.contract import SpreadingWorkload
from perdure.workloads.recovery_contract import FetchingWorkload

__all__ = ["VaultLog", "read_file", "restore_image", "roll_forward", "write_extents", "write_file"]


class VaultLog:
    """Stored segments as a workload reads them; implements ``LogReader``."""

    def __init__(self, vault: Vault, source: str, segments: Sequence[StoredSegment], progress: Progress) -> None:
        self._vault, self._source, self._segments, self._progress = vault, source, segments, progress
        self._total = sum(sum(segment.block_sizes) for segment in segments)

    def segments(self) -> Iterable[StoredSegment]:
        return self._segments

    def blocks(self, segment: StoredSegment) -> Iterable[bytes]:
        for block in self._vault.blocks(self._source, segment.span):
            yield block
            self._progress("applying log", len(block), self._total)


def restore_image(
    p: Protected,
    plan: RecoveryPlan,
    paths: Mapping[str, Path],
    progress: Progress = quiet,
    options: Mapping[str, str] | None = None,
) -> None:
    """Write an image's files to paths that do not exist yet and roll them forward along a plan.

    With options that leave the log to the engine, only the image is written.
    """
    workload = image_workload(p)
    if isinstance(workload, SpreadingWorkload):
        _spread(p.vault, plan, workload, next(iter(paths.values())), progress)
    else:
        for file in plan.point.files:
            write_file(p.vault, file, paths[file.name], progress)
    roll_forward(p, plan, paths, progress, options or {})


def roll_forward(
    p: Protected, plan: RecoveryPlan, paths: Mapping[str, Path], progress: Progress, options: Mapping[str, str]
) -> None:
    """Apply the log of a plan to a restored image, or leave it to the engine if the options say so."""
    workload = image_workload(p)
    if isinstance(workload, FetchingWorkload) and workload.fetches_log(options):
        workload.leave_log(plan.segments)
    elif plan.segments and plan.upto is not None:
        workload.apply_log(paths, VaultLog(p.vault, p.source.id, plan.segments, progress), plan.upto)


def _spread(vault: Vault, plan: RecoveryPlan, workload: SpreadingWorkload, directory: Path, progress: Progress) -> None:
    files = {file.name: file for file in plan.point.files}
    with workload.spread(lambda name: read_file(vault, files[name]), directory) as sinks:
        for name, sink in sinks.items():
            extents = vault.image_map(files[name])
            write_extents(vault, name, extents, sink, progress=progress)


def read_file(vault: Vault, file: ImageFile) -> bytes:
    """One small file of an image, whole.

    Raises:
        Damaged: A chunk is missing, damaged or too short.
    """
    extents = vault.image_map(file)
    content = bytearray(extents.size)
    for row in extents.extents[extents.extents["chunk"] != HOLE]:
        offset, length, start = int(row["offset"]), int(row["length"]), int(row["start"])
        chunk = vault.read_chunk(extents.chunks[int(row["chunk"])].tobytes())
        if start + length > len(chunk):
            raise Damaged(f"a chunk of {file.name!r} is shorter than its extent map says", code="damaged-chunk")
        content[offset : offset + length] = chunk[start : start + length]
    return bytes(content)


def write_file(vault: Vault, file: ImageFile, path: Path, progress: Progress, threads: int = 2) -> None:
    """Write one file of an image to a path that does not exist yet, and sync it.

    Raises:
        FileExistsError: It exists.
        Damaged: A chunk is missing, damaged or too short.
        OSError: The file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        extents = vault.image_map(file)
        os.ftruncate(descriptor, extents.size)
        write_extents(
            vault,
            file.name,
            extents,
            lambda offset, view: _write_all(descriptor, view, offset),
            progress=progress,
            threads=threads,
        )
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_extents(
    vault: Vault,
    name: str,
    extents: ExtentMap,
    take: Callable[[int, memoryview], None],
    *,
    rows: NDArray[np.void] | None = None,
    progress: Progress,
    threads: int = 2,
) -> None:
    """Read the chunks of a file of an image and hand over its bytes, by their offset, from several threads.

    Args:
        vault: The pool.
        name: Of the file.
        extents: Where its bytes are.
        take: Takes them.
        rows: Only these extents, none of them a hole; all unless given.
        progress: Told of the bytes.
        threads: How many call ``take``.

    Raises:
        Damaged: A chunk is missing, damaged or too short.
    """
    rows = extents.extents[extents.extents["chunk"] != HOLE] if rows is None else rows
    rows = rows[np.argsort(rows["chunk"], kind="stable")]
    numbers, first, count = np.unique(rows["chunk"], return_index=True, return_counts=True)
    total = int(rows["length"].sum())

    def write(row: int, content: bytes) -> None:
        part: NDArray[np.void] = rows[first[row] : first[row] + count[row]]
        view = memoryview(content)
        written = 0
        for offset, length, start in zip(
            part["offset"].tolist(), part["length"].tolist(), part["start"].tolist(), strict=True
        ):
            if start + length > len(view):
                raise Damaged(f"a chunk of {name!r} is shorter than its extent map says", code="damaged-chunk")
            take(offset, view[start : start + length])
            written += length
        progress("restoring", written, total)

    ids = [extents.chunks[number].tobytes() for number in numbers.tolist()]
    vault.for_each_chunk(ids, write, threads=threads)


def _write_all(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
