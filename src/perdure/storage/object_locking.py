"""Object lock of S3 buckets, through boto3, which is optional: obstore has no interface to it.

A bucket with object lock keeps versions, so an ordinary delete only hides an object behind a marker: it looks gone,
takes room for ever, and whether it was locked is not even asked. So objects in such a bucket are deleted by their
version: the store refuses a locked one, whoever asks, and an unlocked one is really gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.model.errors import PerdureError, Refused
from perdure.storage.contract import ObjectLocked, ObjectMissing, StorageFailed
from perdure.storage.object_calls import Patience
from perdure.storage.object_errors import understood
from perdure.storage.object_urls import ObjectPlace

if TYPE_CHECKING:
    from botocore.client import BaseClient

__all__ = ["NoLocking", "ObjectLocking", "locking_of"]

_T = TypeVar("_T")
_BATCH = 1000
"""Objects that S3 deletes in one request."""

_AS_OBSTORE_SAYS = {
    "ReadTimeoutError": "kind: Timeout",
    "ConnectTimeoutError": "kind: Timeout",
    "ConnectionClosedError": "error sending request",
    "SSLError": "certificate",
    "NoCredentialsError": "/latest/api/token",
    "PartialCredentialsError": "/latest/api/token",
}
"""botocore's errors in the words that :mod:`perdure.storage.object_errors` knows."""


@dataclass(frozen=True, slots=True)
class NoLocking:
    """Object lock cannot be used here.

    Args:
        reason: Why, as the end of a sentence.
        hint: What would change that.
        unsure: The bucket may have object lock all the same: it could not be asked.
    """

    reason: str
    hint: str
    unsure: bool = False

    def refusal(self, what: str) -> Refused:
        return Refused(f"cannot {what}: {self.reason}", code="no-immutability", hint=self.hint)


@dataclass(frozen=True, slots=True)
class _Version:
    """The current version of an object and its lock."""

    key: str
    id: str | None
    mode: str
    until: datetime | None
    held: bool

    @property
    def locked(self) -> bool:
        return self.held or (self.until is not None and self.until > datetime.now(UTC))


def locking_of(place: ObjectPlace, patience: Patience) -> ObjectLocking | NoLocking:
    """Object lock of a place, or why there is none.

    Raises:
        PerdureError: The bucket cannot be asked.
    """
    if place.kind != "s3":
        return NoLocking("perdure locks objects on S3 only", "keep a second copy in an S3 bucket with object lock")
    try:
        client = _client(place, patience)
    except ImportError:
        return NoLocking("boto3 is not installed", "pip install 'perdure[immutability]'", unsure=True)
    locking = ObjectLocking(place, client)
    if not locking.enabled():
        hint = "object lock is chosen when a bucket is made: make one with it, and copy the pool there"
        return NoLocking(f"the {place.words} has no object lock", hint)
    return locking


def _client(place: ObjectPlace, patience: Patience) -> BaseClient:
    import boto3  # noqa: PLC0415 (optional, and slow to import)
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=min(10.0, patience.answer_s),
        read_timeout=patience.answer_s,
        retries={"mode": "standard", "total_max_attempts": max(1, int(patience.total_s / patience.answer_s / 2))},
        s3={"addressing_style": "path" if place.endpoint else "auto"},
    )
    region = place.options.get("region")
    return boto3.client("s3", endpoint_url=place.endpoint, region_name=region or _region(), config=config)


def _region() -> str:
    import boto3  # noqa: PLC0415

    # The same default as obstore's, so that both sign for the same region.
    return boto3.Session().region_name or "us-east-1"


class ObjectLocking:
    """A bucket's object lock. Names here are whole keys, prefix included."""

    def __init__(self, place: ObjectPlace, client: Any) -> None:
        self._place = place
        self._client = client

    def enabled(self) -> bool:
        """Whether the bucket has object lock."""
        try:
            answer = self._asked(
                "see whether there is object lock",
                lambda: self._client.get_object_lock_configuration(Bucket=self._place.bucket),
                none=("ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed"),
            )
        except StorageFailed as error:
            if error.code == "access-denied" and self._place.lock is None:
                # Nobody asked for locks, and these credentials may not look at the bucket: as before.
                return False
            raise
        return bool(answer) and answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"

    def retain(self, key: str, until_ns: int, name: str) -> None:
        """Lock until a moment, rounded up to the whole second that S3 knows; never shortens."""
        version = self._version(key)
        if version is None:
            raise ObjectMissing(f"the {self._place.words} has no object {name}")
        until = datetime.fromtimestamp(-(-until_ns // 10**9), UTC)
        if version.until is not None and version.until >= until:
            return
        mode = "COMPLIANCE" if version.locked and version.mode == "COMPLIANCE" else (self._place.lock or "").upper()
        retention = {"Mode": mode, "RetainUntilDate": until}
        self._asked(
            f"lock {name}",
            lambda: self._client.put_object_retention(
                Bucket=self._place.bucket, Key=key, VersionId=version.id, Retention=retention
            ),
            writing=True,
        )

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the current versions for good; those before a locked one in the order given are gone.

        Raises:
            ObjectLocked: One is locked.
        """
        with ThreadPoolExecutor(8, thread_name_prefix="object-versions") as workers:
            for at in range(0, len(keys), _BATCH):
                found = [version for version in workers.map(self._version, keys[at : at + _BATCH]) if version]
                locked = next((number for number, version in enumerate(found) if version.locked), len(found))
                self._delete_versions(found[:locked])
                if locked < len(found):
                    raise self._locked(found[locked].key, found[locked].until)

    def _delete_versions(self, versions: Sequence[_Version]) -> None:
        if not versions:
            return
        wanted: list[dict[str, str]] = [
            {"Key": each.key, **({"VersionId": each.id} if each.id else {})} for each in versions
        ]
        answer = self._asked(
            f"delete {len(versions)} objects",
            lambda: self._client.delete_objects(Bucket=self._place.bucket, Delete={"Objects": wanted, "Quiet": True}),
            writing=True,
        )
        for failed in answer.get("Errors", ()):
            if failed.get("Code") in ("NoSuchVersion", "NoSuchKey"):
                continue
            if failed.get("Code") in ("AccessDenied", "InvalidRequest", "ObjectLocked"):
                raise self._locked(str(failed.get("Key")), None)
            raise StorageFailed(f"cannot delete {failed.get('Key')} in the {self._place.words}: {failed.get('Code')}")

    def _locked(self, key: str, until: datetime | None) -> ObjectLocked:
        return ObjectLocked(
            f"{key} is locked against deletion in the {self._place.words}"
            + (f" until {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if until else ""),
            hint="nobody can delete it before; run the command again when the lock has run out"
            if until
            else "it is locked, or these credentials lack the right to delete versions (s3:DeleteObjectVersion)",
        )

    def _version(self, key: str) -> _Version | None:
        found = self._asked(
            f"look at {key}",
            lambda: self._client.head_object(Bucket=self._place.bucket, Key=key),
            none=("404", "NoSuchKey", "NotFound"),
        )
        if found is None:
            return None
        return _Version(
            key,
            found.get("VersionId"),
            found.get("ObjectLockMode", ""),
            found.get("ObjectLockRetainUntilDate"),
            found.get("ObjectLockLegalHoldStatus") == "ON",
        )

    def _asked(self, what: str, ask: Callable[[], _T], *, none: Sequence[str] = (), writing: bool = False) -> Any:
        """One request; ``None`` if the store answers with one of the codes ``none``."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return ask()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in none:
                return None
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            raise self._translated(f"status code: {status} <Code>{code}</Code>", what, writing=writing) from error
        except BotoCoreError as error:
            said = _AS_OBSTORE_SAYS.get(type(error).__name__, f"kind: Connect {type(error).__name__}")
            raise self._translated(said, what, writing=writing) from error

    def _translated(self, text: str, what: str, *, writing: bool) -> PerdureError:
        return understood(RuntimeError(text), self._place, what, writing=writing).error
