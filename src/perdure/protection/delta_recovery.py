"""Recovery onto a directory that has another state of the same source: only what differs is read and written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import NotFound, Partial, PerdureError
from perdure.model.extents import HOLE, ExtentMap
from perdure.model.timeline import RecoveryPlan
from perdure.protection.directory_recovery import RecoveredDirectory, make_durable, verified
from perdure.protection.image_restore import read_file, roll_forward, write_extents
from perdure.protection.parallel import for_each_number
from perdure.protection.progress import Progress
from perdure.protection.protected import Protected, image_workload
from perdure.protection.vault import Vault
from perdure.workloads.contract import Arranged, DirectoryWorkload
from perdure.workloads.recovery_contract import OverwritingWorkload, OverwrittenFile

__all__ = ["recover_onto"]

_THREADS = 2


def recover_onto(
    p: Protected,
    plan: RecoveryPlan,
    target: Path,
    *,
    confirmed: bool,
    verify: Literal["quick", "thorough", "none"],
    options: Mapping[str, str],
    progress: Progress,
) -> RecoveredDirectory:
    """Recover a source onto a directory.

    Chunks that the directory has already are not read from the pool, and of the others only pages that differ are
    written. Until it is done no engine can start on it; after a failure the same recovery can be run again.

    Args:
        p: The source; its workload is an :class:`~perdure.workloads.recovery_contract.OverwritingWorkload`.
        plan: What to recover.
        target: The directory.
        confirmed: A person confirmed what has to be confirmed.
        verify: How to check it by its engine's own means.
        options: The workload's own options.
        progress: Told of the bytes.

    Raises:
        NotFound: There is no directory.
        Refused: The directory is not one of this source, or is in use; nothing was changed.
        PerdureError: It failed; the directory is neither what it was nor what it should be.
    """
    workload, files = p.workload, image_workload(p)
    assert isinstance(workload, OverwritingWorkload)
    assert isinstance(workload, DirectoryWorkload)
    if not target.is_dir():
        raise NotFound(
            f"there is no directory {target} to recover onto",
            code="target-missing",
            hint="check the path, or leave --delta out to recover to a new directory",
        )
    named = {file.name: file for file in plan.point.files}
    paths = files.target_paths(list(named), target)

    def content(name: str) -> bytes:
        return read_file(p.vault, named[name])

    workload.refuse_unfit(content, target, confirmed=confirmed)
    with _said_to_be_unfinished(p, target):
        written = 0
        with workload.overwrite(content, target) as sinks:
            for name, sink in sinks.items():
                written += _overwrite(p.vault, name, p.vault.image_map(named[name]), sink, progress)
        roll_forward(p, plan, paths, progress, options)
        arranged = workload.arrange(p.source, target, plan.upto, options)
        verification = None if verify == "none" else verified(p, paths, thorough=verify == "thorough")
        size = make_durable(target, *arranged.beside)
    note = f"{written:,} bytes differed from the image and were written"
    arranged = Arranged(arranged.position, arranged.time_ns, (note, *arranged.notes))
    return RecoveredDirectory((target,), size, verification, arranged)


def _overwrite(vault: Vault, name: str, extents: ExtentMap, sink: OverwrittenFile, progress: Progress) -> int:
    """Write what differs of one file; returns the bytes."""
    rows = extents.extents[extents.extents["chunk"] != HOLE]
    same = _chunks_already_there(vault, extents, rows, sink)
    written = [_holes(extents, sink)]

    def take(offset: int, view: memoryview) -> None:
        written.append(sink.take(offset, view))

    write_extents(vault, name, extents, take, rows=rows[~np.isin(rows["chunk"], same)], progress=progress)
    return sum(written)


def _holes(extents: ExtentMap, sink: OverwrittenFile) -> int:
    """Where the image has zeros, so must the directory."""
    written = 0
    for row in extents.extents[extents.extents["chunk"] == HOLE]:
        at, end = int(row["offset"]), int(row["offset"] + row["length"])
        while at < end:
            count = min(end - at, 1 << 20)
            if sink.present(at, count) is not None:
                written += sink.take(at, memoryview(bytes(count)))
            at += count
    return written


def _chunks_already_there(
    vault: Vault, extents: ExtentMap, rows: NDArray[np.void], sink: OverwrittenFile
) -> NDArray[np.int64]:
    """Numbers of the chunks whose content the directory has everywhere the image has it.

    A chunk is known by the id of its whole content: of one that the image uses in part nothing can be said.
    """
    order = rows[np.argsort(rows["chunk"], kind="stable")]
    numbers, first, count = np.unique(order["chunk"], return_index=True, return_counts=True)
    ids = [extents.chunks[number].tobytes() for number in numbers.tolist()]
    sizes = vault.chunk_sizes(ids)
    same = np.zeros(len(numbers), bool)

    def compare(row: int) -> None:
        parts = np.sort(order[first[row] : first[row] + count[row]], order="start")
        if not _covers(parts, int(sizes[row])):
            return
        there = [sink.present(int(part["offset"]), int(part["length"])) for part in parts]
        found = [piece for piece in there if piece is not None]
        whole = found[0] if len(found) == 1 else b"".join(found)
        same[row] = len(found) == len(there) and vault.chunk_id(whole) == ids[row]

    for_each_number(len(numbers), compare, _THREADS)
    return np.asarray(numbers[same], np.int64)


def _covers(parts: NDArray[np.void], size: int) -> bool:
    """Whether parts of a chunk, by their start, are all of it, each byte once."""
    starts = parts["start"].astype(np.int64)
    ends = starts + parts["length"].astype(np.int64)
    return bool(starts[0] == 0 and ends[-1] == size and np.array_equal(starts[1:], ends[:-1]))


@contextlib.contextmanager
def _said_to_be_unfinished(p: Protected, target: Path) -> Iterator[None]:
    state = f"{target} is neither what it was nor what it should be; recover onto it again, or to a new directory"
    try:
        yield
    except PerdureError as error:
        raise type(error)(f"{error.message}. {state}", code=error.code, hint=error.hint) from error
    except OSError as error:
        raise Partial(
            f"recovering {p.source.name!r} onto {target} stopped: {error.strerror or error}. {state}",
            code="target-failed",
            hint="check the target's file system and permissions",
        ) from error
