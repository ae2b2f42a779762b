"""The storage contract on object stores."""

from __future__ import annotations

import pytest

from perdure.storage.object_urls import ObjectPlace
from perdure.storage.objects import ObjectStorage
from perdure.testing.object_servers import Azurite, SeaweedFS
from perdure.testing.storage_contract import StorageContract, Subject


def at(url: str) -> Subject:
    return Subject(lambda: ObjectStorage(ObjectPlace.parse(url)), url=url)


class TestSeaweedFS(StorageContract):
    """S3, on SeaweedFS."""

    @pytest.fixture
    def subject(self, seaweedfs: SeaweedFS, prefix: str) -> Subject:
        return at(seaweedfs.url("pools", prefix))


class TestAzurite(StorageContract):
    """Azure Blob Storage, on Azurite."""

    @pytest.fixture
    def subject(self, azurite: Azurite, prefix: str) -> Subject:
        return at(azurite.url("pools", prefix))


@pytest.mark.parametrize(
    "check",
    [
        "test_a_name_is_given_once",
        "test_a_deleted_name_can_be_given_again",
        "test_deleting_removes_what_is_named_only",
        "test_a_lease_is_seen_until_it_is_released",
        "test_leases_are_no_part_of_the_pool",
        "test_immutability_is_no_lie",
        "test_retention_is_never_shortened",
    ],
)
@pytest.mark.parametrize("mode", ["compliance", "governance"])
def test_the_contract_holds_in_a_bucket_with_object_lock(
    seaweedfs: SeaweedFS, prefix: str, mode: str, check: str
) -> None:
    """What versions and locks could change is as promised there too."""
    getattr(StorageContract(), check)(at(seaweedfs.url("locked", prefix, lock=mode)))
