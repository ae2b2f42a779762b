"""From what a person types to a storage."""

from __future__ import annotations

from pathlib import Path

from perdure.model.errors import BadInput
from perdure.storage.contract import Storage
from perdure.storage.local import LocalStorage
from perdure.storage.object_urls import ObjectPlace, is_object_url

__all__ = ["open_storage", "with_endpoint"]


def with_endpoint(url: str, endpoint: str | None) -> str:
    """The URL that leads to a pool on a server of one's own.

    Raises:
        BadInput: The pool is not on an object store, or its URL names another endpoint.
    """
    if endpoint is None:
        return url
    if not is_object_url(url):
        raise BadInput(
            f"--endpoint makes no sense for {url!r}",
            code="bad-storage-url",
            hint="an endpoint belongs to an s3:// or azure:// URL",
        )
    return ObjectPlace.parse(url).with_option("endpoint", endpoint).url


def open_storage(url: str, *, create: bool = False) -> Storage:
    """Open the storage at a path or URL.

    Args:
        url: The path of a directory, or the URL of an object store; see :mod:`perdure.storage.object_urls`.
        create: Make the directory if it is missing; see whether an object store can hold a pool.

    Raises:
        BadInput: The kind of URL is not supported, or it is wrong.
        NotFound: It does not exist and ``create`` is false, or there is no such bucket.
        StorageFailed: It cannot be reached, or refuses the credentials.
    """
    if not url.removeprefix("file://").strip():
        raise BadInput(
            "the place of the storage pool is empty", hint="give the path of a directory, or an s3:// or azure:// URL"
        )
    if is_object_url(url):
        return _open_objects(url, create=create)
    if "://" in url and not url.startswith("file://"):
        raise BadInput(
            f"cannot use {url.partition('://')[0]!r} URLs as a storage pool",
            code="unsupported-storage",
            hint="give the path of a directory, or an s3:// or azure:// URL",
        )
    return LocalStorage(Path(url.removeprefix("file://")).expanduser(), create=create)


def _open_objects(url: str, *, create: bool) -> Storage:
    # Only who has a pool on an object store waits for the libraries to load.
    from perdure.storage.objects import ObjectStorage  # noqa: PLC0415

    storage = ObjectStorage(ObjectPlace.parse(url))
    storage.look()
    if create:
        storage.prove_conditional()
    return storage
