"""URLs of pools on object stores: everything that is needed to find one again, and never a secret.

======================================  ===================================================================
``s3://BUCKET/PREFIX``                  Amazon S3 and stores that speak its protocol
``azure://CONTAINER/PREFIX``            Azure Blob Storage (``az://`` is the same)
``?endpoint=URL``                       where the server is, unless it is the provider's own
``?region=NAME``                        S3: the bucket's region
``?account=NAME``                       Azure: the storage account
``?lock=compliance`` or ``governance``  S3: lock objects that are retained, with object lock
======================================  ===================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from perdure.model.errors import BadInput
from perdure.storage.names import check_name

__all__ = ["LockMode", "ObjectPlace", "is_object_url"]

Kind = Literal["s3", "azure"]
LockMode = Literal["compliance", "governance"]

_KINDS: dict[str, Kind] = {"s3": "s3", "azure": "azure", "az": "azure"}
_OPTIONS: dict[Kind, tuple[str, ...]] = {"s3": ("endpoint", "region", "lock"), "azure": ("account", "endpoint", "lock")}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where a pool lies on an object store.

    Args:
        kind: The protocol.
        bucket: Bucket (S3) or container (Azure).
        prefix: ``/``-separated; empty for the whole bucket.
        options: ``endpoint``, ``region``, ``account`` and ``lock``, as far as they are given.
    """

    kind: Kind
    bucket: str
    prefix: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> ObjectPlace:
        """Read a URL.

        Raises:
            BadInput: It is not one of the URLs above (``bad-storage-url``), or it has a secret in it
                (``secret-in-url``), which the message does not repeat.
        """
        try:
            parts = urlsplit(url)
            kind = _KINDS[parts.scheme]
            given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except (ValueError, KeyError) as error:
            raise _bad("this is not the URL of a storage pool") from error
        if "@" in parts.netloc or parts.password is not None:
            raise _secret(f"{parts.scheme}://")
        options: dict[str, str] = {}
        for name, value in given:
            if name not in _OPTIONS[kind] or name in options:
                # The value is not shown: it may be a key that somebody put here.
                raise _bad(f"{name!r} is not an option of {parts.scheme}:// URLs, or is given twice", kind)
            options[name] = value
        if parts.fragment or not _BUCKET.fullmatch(parts.netloc):
            raise _bad(f"{parts.netloc!r} cannot be the name of a bucket or container", kind)
        prefix = unquote(parts.path).strip("/")
        place = cls(kind, parts.netloc, prefix, {name: value for name, value in options.items() if value})
        _check_place(place)
        return place

    def with_option(self, name: str, value: str) -> ObjectPlace:
        """The same place with one more option.

        Raises:
            BadInput: The option is there already with another value, or the value makes no sense.
        """
        if self.options.get(name, value) != value:
            raise _bad(f"the URL says {name}={self.options[name]} already", self.kind)
        place = replace(self, options={**self.options, name: value})
        _check_place(place)
        return place

    @property
    def endpoint(self) -> str | None:
        return self.options.get("endpoint")

    @property
    def lock(self) -> LockMode | None:
        return cast("LockMode | None", self.options.get("lock"))

    @property
    def url(self) -> str:
        """The URL that leads here again; equal places have equal URLs."""
        path = f"/{quote(self.prefix)}" if self.prefix else ""
        query = "&".join(f"{name}={quote(value, safe='/:')}" for name, value in sorted(self.options.items()))
        return f"{self.kind}://{self.bucket}{path}{'?' if query else ''}{query}"

    @property
    def words(self) -> str:
        """The place in a sentence."""
        container = "bucket" if self.kind == "s3" else "container"
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"{container} {self.bucket!r}{at}"


def is_object_url(url: str) -> bool:
    """Whether a URL is one of an object store, right or wrong."""
    return url.partition("://")[0] in _KINDS and "://" in url


def _check_place(place: ObjectPlace) -> None:
    try:
        _ = check_name(place.prefix) if place.prefix else ()
    except ValueError as error:
        raise _bad(f"{place.prefix!r} cannot be the prefix of a storage pool", place.kind) from error
    if place.options.get("lock", "compliance") not in ("compliance", "governance"):
        raise _bad(f"lock={place.options['lock']} is neither compliance nor governance", place.kind)
    if "endpoint" in place.options:
        _check_endpoint(place.options["endpoint"])


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError as error:
        raise _bad("the endpoint is not a URL") from error
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _secret("the endpoint")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad(f"the endpoint {endpoint!r} is not an http:// or https:// URL")


def _bad(message: str, kind: Kind | None = None) -> BadInput:
    options = f"; options: {', '.join(_OPTIONS[kind])}" if kind else ""
    return BadInput(
        message,
        code="bad-storage-url",
        hint=f"write s3://BUCKET/PREFIX or azure://CONTAINER/PREFIX, and ?endpoint=URL for your own server{options}",
    )


def _secret(where: str) -> BadInput:
    return BadInput(
        f"{where} has a user name, a key or a token in it; a pool's URL is kept in plain text and shown in messages",
        code="secret-in-url",
        hint="give credentials in the environment (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_KEY, …) or in ~/.aws",
    )
