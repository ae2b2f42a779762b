"""Recovery of databases that are several files: into a directory of their own, or in the place of the source's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from perdure.model.errors import BadInput, Damaged
from perdure.model.timeline import RecoveryPlan
from perdure.protection.image_restore import restore_image
from perdure.protection.progress import Progress
from perdure.protection.protected import Protected, image_workload
from perdure.protection.recovery_places import (
    clear_of_partial,
    partial_of,
    refuse_existing,
    refuse_source,
    remove,
    sync_path,
)
from perdure.workloads.contract import Arranged, DirectoryWorkload, Verification
from perdure.workloads.recovery_contract import OptionCheckingWorkload

__all__ = ["RecoveredDirectory", "check_options", "make_durable", "recover_directory", "verified"]


SYNCS = 16
"""How many files are synced at once."""


@dataclass(frozen=True, slots=True)
class RecoveredDirectory:
    """What was recovered.

    Args:
        paths: The directory, or in place the files.
        size: Bytes written.
        verification: What the engine's own means said; ``None`` if that was not asked for.
        arranged: What became of it after the log was applied.
    """

    paths: tuple[Path, ...]
    size: int
    verification: Verification | None
    arranged: Arranged


def check_options(p: Protected, options: Mapping[str, str]) -> None:
    """Refuse options that a source's workload does not know.

    Raises:
        BadInput: There is one, or they make no sense.
    """
    known = p.workload.recovery_options if isinstance(p.workload, DirectoryWorkload) else frozenset()
    unknown = sorted(options.keys() - known)
    if unknown:
        raise BadInput(
            f"a {p.workload.kind} source is not recovered with --{unknown[0]}",
            code="bad-recovery-option",
            hint=f"leave --{unknown[0]} out",
        )
    if isinstance(p.workload, OptionCheckingWorkload):
        p.workload.check_recovery_options(options)


def recover_directory(
    p: Protected,
    plan: RecoveryPlan,
    target: Path | None,
    *,
    verify: Literal["quick", "thorough", "none"],
    options: Mapping[str, str],
    progress: Progress,
) -> RecoveredDirectory:
    """Recover a database that is several files.

    Args:
        p: The source; its workload is a :class:`~perdure.workloads.contract.DirectoryWorkload`.
        plan: What to recover.
        target: The directory, which must not exist yet; ``None``: in the place of the source's own files.
        verify: How to check it by its engine's own means.
        options: The workload's own options.
        progress: Told of the bytes.

    Raises:
        Refused: The target exists, is the live source, or the source is in use.
        Damaged: The pool is damaged where this recovery reads, or the verification failed.
        Partial: The target's file system is full or fails; nothing is left behind.
    """
    workload, files = p.workload, image_workload(p)
    assert isinstance(workload, DirectoryWorkload)
    if target is not None:
        refuse_source(p, target)
        refuse_existing(target)
    partial = partial_of(workload.in_place_folder(p.source) if target is None else target)
    with clear_of_partial(p, [partial]):
        partial.mkdir(mode=0o700)
        paths = files.target_paths([file.name for file in plan.point.files], partial)
        restore_image(p, plan, paths, progress, options)
        arranged = workload.arrange(p.source, partial, plan.upto, options)
        with _removed_on_failure(p, arranged.beside):
            verification = None if verify == "none" else verified(p, paths, thorough=verify == "thorough")
            size = make_durable(partial, *arranged.beside)
            if target is None:
                placed, notes = workload.take_place(p.source, partial)
                remove(p, partial)
                arranged = replace(arranged, notes=(*arranged.notes, *notes))
                return RecoveredDirectory(placed, size, verification, arranged)
            refuse_existing(target)
            partial.rename(target)
            sync_path(target.parent)
    return RecoveredDirectory((target,), size, verification, arranged)


def verified(p: Protected, paths: Mapping[str, Path], *, thorough: bool) -> Verification:
    """What the engine's own means say of restored files.

    Raises:
        Damaged: They do not pass.
    """
    verification = image_workload(p).verify(paths, thorough)
    if not verification.passed:
        raise Damaged(
            f"what was recovered of {p.source.name!r} does not pass {verification.means}: "
            + "; ".join(verification.details[:3]),
            code="verification-failed",
            hint="recover another point; '--verify none' recovers it as it is",
        )
    return verification


@contextlib.contextmanager
def _removed_on_failure(p: Protected, directories: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for directory in directories:
            remove(p, directory)
        raise


def make_durable(*directories: Path) -> int:
    """Sync whole trees; returns the bytes of their files.

    Several at once: the file system's journal then commits them together.
    """
    paths = [path for directory in directories for path in directory.rglob("*") if not path.is_symlink()]
    with ThreadPoolExecutor(SYNCS, thread_name_prefix="sync") as threads:
        for _ in threads.map(sync_path, [*paths, *directories]):
            continue
    return sum(path.stat().st_size for path in paths if path.is_file())
