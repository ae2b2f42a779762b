"""Key files on disk: made once, never overwritten, for nobody else to read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.model.errors import BadInput, Refused

if TYPE_CHECKING:
    from perdure.repository.keys import KeyFile
    from perdure.storage.contract import Storage

__all__ = ["refuse_inside_pool", "write_key_file"]


def refuse_inside_pool(path: Path, storage: Storage) -> None:
    """A key beside what it opens protects nothing.

    Raises:
        BadInput: The path lies inside the pool.
    """
    if storage.capabilities.local and path.resolve().is_relative_to(Path(storage.url).resolve()):
        raise BadInput(
            f"{path} lies inside the pool: whoever has the pool would have its key",
            code="key-file-in-pool",
            hint="keep the key file away from the pool's disk",
        )


def write_key_file(path: Path, key_file: KeyFile, pool_id: str) -> None:
    """Make a key file (mode 0600); it is durable on return.

    Raises:
        Refused: There is something at this path already.
        BadInput: It cannot be written there.
    """
    text = f"{key_file.text()}\n# Opens storage pool {pool_id}. Whoever has this file can read the pool.\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii", closefd=False) as file:
                file.write(text)
            os.fsync(descriptor)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise Refused(
            f"{path} exists already; a key file is never overwritten, since it may be the last key to a pool",
            code="key-file-exists",
            hint="choose another name",
        ) from error
    except OSError as error:
        raise BadInput(
            f"cannot write the key file {path}: {error.strerror}",
            code="key-file-unwritable",
            hint="name a file in a directory that exists and that you may write",
        ) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
