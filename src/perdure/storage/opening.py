"""From what a person types to a storage."""

from __future__ import annotations

from pathlib import Path

from perdure.model.errors import BadInput
from perdure.storage.contract import Storage
from perdure.storage.local import LocalStorage

__all__ = ["open_storage"]


def open_storage(url: str, *, create: bool = False) -> Storage:
    """Open the storage at a path or URL.

    Raises:
        BadInput: The kind of URL is not supported, or it is empty.
        NotFound: It does not exist and ``create`` is false.
    """
    if not url.removeprefix("file://").strip():
        raise BadInput("the place of the storage pool is empty", hint="give the path of a directory")
    if "://" in url and not url.startswith("file://"):
        raise BadInput(
            f"cannot use {url!r} as a storage pool: this version keeps pools in local directories only",
            code="unsupported-storage",
            hint="give the path of a directory",
        )
    return LocalStorage(Path(url.removeprefix("file://")).expanduser(), create=create)
