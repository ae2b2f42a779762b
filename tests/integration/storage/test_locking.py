"""Object lock, on SeaweedFS: what is retained is really kept, and never hidden."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from perdure.model.errors import Refused
from perdure.storage.contract import ObjectLocked
from perdure.storage.object_urls import ObjectPlace
from perdure.storage.objects import ObjectStorage
from perdure.storage.opening import open_storage
from perdure.testing.object_servers import Azurite, SeaweedFS

HOUR_NS = 3600 * 10**9


def storage_at(url: str) -> ObjectStorage:
    return ObjectStorage(ObjectPlace.parse(url))


@pytest.mark.parametrize("mode", ["compliance", "governance"])
def test_a_retained_object_is_locked_on_the_server(seaweedfs: SeaweedFS, prefix: str, mode: str) -> None:
    """The lock is the server's own, in the mode asked for: it refuses another program's delete and shortening too."""
    storage, client = storage_at(seaweedfs.url("locked", prefix, lock=mode)), seaweedfs.client()
    until = time.time_ns() + HOUR_NS
    storage.create("a", b"x")
    storage.retain("a", until)
    storage.retain("a", until - HOUR_NS // 2)
    key = f"{prefix}/a"

    found = client.get_object_retention(Bucket="locked", Key=key)["Retention"]
    assert found["Mode"] == mode.upper()
    assert 0 <= found["RetainUntilDate"].timestamp() - until / 1e9 <= 1

    version = client.head_object(Bucket="locked", Key=key)["VersionId"]
    with pytest.raises(ClientError):
        client.delete_object(Bucket="locked", Key=key, VersionId=version)
    earlier = {"Mode": mode.upper(), "RetainUntilDate": datetime.now(UTC) + timedelta(minutes=5)}
    with pytest.raises(ClientError):
        client.put_object_retention(Bucket="locked", Key=key, VersionId=version, Retention=earlier)
    with pytest.raises(ObjectLocked):
        storage.delete("a")
    assert storage.read("a") == b"x"


def test_retention_can_be_extended(seaweedfs: SeaweedFS, prefix: str) -> None:
    """A later moment replaces an earlier one."""
    storage = storage_at(seaweedfs.url("locked", prefix, lock="compliance"))
    storage.create("a", b"x")
    storage.retain("a", time.time_ns() + HOUR_NS)
    storage.retain("a", time.time_ns() + 2 * HOUR_NS)

    found = seaweedfs.client().get_object_retention(Bucket="locked", Key=f"{prefix}/a")["Retention"]
    assert found["RetainUntilDate"] > datetime.now(UTC) + timedelta(minutes=90)


def test_what_is_deleted_is_gone_and_not_hidden(seaweedfs: SeaweedFS, prefix: str) -> None:
    """In a bucket that keeps versions, deleting leaves neither a version nor a marker."""
    storage = storage_at(seaweedfs.url("locked", prefix, lock="compliance"))
    storage.create("a", b"x")
    storage.create("b", b"x")

    storage.delete("a", "b")

    found = seaweedfs.client().list_object_versions(Bucket="locked", Prefix=f"{prefix}/")
    assert found.get("Versions", []) == found.get("DeleteMarkers", []) == []


def test_a_pool_opened_without_lock_does_not_hide_locked_objects(seaweedfs: SeaweedFS, prefix: str) -> None:
    """Whoever forgets lock= in the URL still cannot make a locked object look deleted."""
    storage_at(seaweedfs.url("locked", prefix, lock="compliance")).create("a", b"x")
    storage_at(seaweedfs.url("locked", prefix, lock="compliance")).retain("a", time.time_ns() + HOUR_NS)
    storage = storage_at(seaweedfs.url("locked", prefix))

    with pytest.raises(ObjectLocked):
        storage.delete("a")

    assert not storage.capabilities.immutable
    assert [found.name for found in storage.list("")] == ["a"]
    with pytest.raises(Refused) as caught:
        storage.retain("a", time.time_ns() + 2 * HOUR_NS)
    assert caught.value.code == "no-immutability"


def test_a_bucket_without_object_lock_is_no_place_for_locks(seaweedfs: SeaweedFS, prefix: str) -> None:
    """lock= in a bucket that cannot is refused when a pool is made, is no claim, and does not stop reading."""
    url = seaweedfs.url("pools", prefix, lock="compliance")
    with pytest.raises(Refused, match="has no object lock") as caught:
        open_storage(url, create=True)
    assert caught.value.code == "no-immutability"

    storage = storage_at(url)
    storage.create("a", b"x")
    assert not storage.capabilities.immutable
    with pytest.raises(Refused, match="has no object lock"):
        storage.retain("a", time.time_ns() + HOUR_NS)
    assert open_storage(url).read("a") == b"x"
    storage.delete("a")
    assert list(storage.list("")) == []


def test_without_boto3_nothing_is_locked_or_deleted_quietly(
    seaweedfs: SeaweedFS, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without boto3 a pool with lock= is read and written; retaining and deleting say what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    storage = storage_at(seaweedfs.url("locked", prefix, lock="compliance"))
    storage.create("a", b"x")

    assert storage.read("a") == b"x"
    assert not storage.capabilities.immutable
    for refused in (lambda: storage.retain("a", time.time_ns() + HOUR_NS), lambda: storage.delete("a")):
        with pytest.raises(Refused) as caught:
            refused()
        assert caught.value.code == "no-immutability"
        assert "perdure[immutability]" in caught.value.hint


def test_azure_has_no_locks(azurite: Azurite, prefix: str) -> None:
    """On Azure lock= is refused, and the capability is not claimed."""
    url = azurite.url("pools", prefix, lock="compliance")
    with pytest.raises(Refused) as caught:
        open_storage(url, create=True)

    assert caught.value.code == "no-immutability"
    assert not storage_at(url).capabilities.immutable
