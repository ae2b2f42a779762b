"""Where a recovery writes: names of what is not whole yet, what must not be overwritten, and durability."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from perdure.model.errors import Partial, PerdureError, Refused
from perdure.protection.protected import Protected

__all__ = [
    "PARTIAL",
    "clear_of_partial",
    "companions_of",
    "kept_name",
    "partial_of",
    "refuse_existing",
    "refuse_source",
    "remove",
    "rename_new",
    "sync_path",
]

PARTIAL = ".perdure-partial"
"""Suffix of what is not whole yet; whatever has it may be deleted."""

COMPANIONS = ("-wal", "-shm", "-journal")
"""Names beside a recovered file that must not exist; a workload may declare others as ``companion_suffixes``."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


def refuse_source(p: Protected, path: Path) -> None:
    """Refuse to write onto the live source."""
    if _is_source(p, path):
        raise Refused(
            f"{path} is the live source {p.source.name!r}; nothing was changed",
            code="would-overwrite-source",
            hint="choose another --target, or replace the source with --in-place --yes",
        )


def _is_source(p: Protected, path: Path) -> bool:
    location = Path(p.source.location)
    if path.resolve() == location.resolve():
        return True
    return path.exists() and location.exists() and path.samefile(location)


def refuse_existing(path: Path) -> None:
    """Refuse to write onto anything, or into a directory that is not there."""
    if os.path.lexists(path):
        raise Refused(
            f"the target {path} exists; nothing was written",
            code="target-exists",
            hint="name a target that does not exist, or move it away",
        )
    if not path.parent.is_dir():
        raise Refused(
            f"the directory {path.parent} does not exist; nothing was written",
            code="target-unusable",
            hint="make it, or choose another target",
        )


def companions_of(p: Protected, path: Path) -> list[Path]:
    """Files beside a database that its engine would take as part of it."""
    suffixes = getattr(p.workload, "companion_suffixes", COMPANIONS)
    return [path.with_name(path.name + suffix) for suffix in suffixes]


def kept_name(final: Path) -> Path:
    """Beside a file that is replaced: the name under which it is kept."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    return final.with_name(f"{final.name}.before-recovery-{stamp}")


def partial_of(final: Path) -> Path:
    """The name of something that is not whole yet."""
    return final.with_name(final.name + PARTIAL)


def rename_new(partial: Path, final: Path) -> None:
    """Rename without ever replacing what appeared meanwhile."""
    try:
        os.link(partial, final)
    except FileExistsError:
        refuse_existing(final)
        raise
    except OSError:
        # A file system without hard links: the check and the rename are two steps there.
        refuse_existing(final)
        partial.rename(final)
        return
    partial.unlink()


@contextlib.contextmanager
def clear_of_partial(p: Protected, paths: Sequence[Path]) -> Iterator[None]:
    """Remove what an earlier recovery left, and, if this one fails, what it wrote; explain file system errors."""
    for path in paths:
        remove(p, path)
    try:
        yield
    except BaseException as error:
        for path in paths:
            remove(p, path)
        if (system := _system_error(error)) is not None:
            raise _explained(p, paths[0], system) from error
        raise


def _system_error(error: BaseException) -> OSError | None:
    """The operating system's error that made a recovery fail, also below an engine's or a workload's error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause if not isinstance(error, PerdureError) else None
        cause = cause.__cause__
    return None


def _explained(p: Protected, path: Path, error: OSError) -> Partial:
    full = error.errno in _FULL
    return Partial(
        f"recovering {p.source.name!r} to {path.parent} stopped: {error.strerror or error}; nothing was left there",
        code="target-full" if full else "target-failed",
        hint="free some space or choose another target" if full else "check the target's file system and permissions",
    )


def remove(p: Protected, path: Path) -> None:
    """Remove a file with its companions, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    for each in (path, *companions_of(p, path)):
        each.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Make a file or a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
