"""The storage contract on a local directory and in memory, and the suite itself on storages that lie."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.model.errors import PerdureError
from perdure.storage.contract import Buffer, Capabilities, LeaseInfo, ObjectExists, ObjectInfo, Pending, Staged, Storage
from perdure.storage.local import LocalStorage
from perdure.testing.memory_storage import MemoryObject, MemoryObjects, MemoryStaged, MemoryStorage
from perdure.testing.storage_contract import StorageContract, Subject


class TestLocalStorage(StorageContract):
    """A local directory."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        return Subject(lambda: LocalStorage(tmp_path / "pool", create=True), url=str(tmp_path / "pool"), many=200)

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        """Other processes open what is there."""
        (tmp_path / "pool").mkdir()


class TestMemoryStorage(StorageContract):
    """A storage in memory."""

    @pytest.fixture
    def subject(self) -> Subject:
        return in_memory(MemoryStorage)


class TestMemoryStorageThatRetains(StorageContract):
    """A storage in memory that can retain objects."""

    @pytest.fixture
    def subject(self) -> Subject:
        return in_memory(MemoryStorage, immutable=True)


def in_memory(kind: Callable[[MemoryObjects], Storage], *, immutable: bool = False) -> Subject:
    shared = MemoryObjects(immutable=immutable)
    return Subject(lambda: kind(shared), now_ns=lambda: shared.clock.now_ns, advance=shared.clock.advance)


class Overwriting(MemoryStorage):
    def create(self, name: str, *buffers: Buffer) -> None:
        self.shared.objects[name] = MemoryObject(b"".join(buffers), self.clock.now_ns)


class SayingYesToEqualContent(MemoryStorage):
    def create(self, name: str, *buffers: Buffer) -> None:
        try:
            super().create(name, *buffers)
        except ObjectExists:
            if self.read(name) != b"".join(buffers):
                raise


class ShowingEarly(MemoryStorage):
    def stage(self) -> Staged:
        shared = self.shared

        class Visible(MemoryStaged):
            def write(self, *buffers: Buffer) -> None:
                super().write(*buffers)
                shared.objects["packs/x"] = MemoryObject(self.content(), 0)

        return Visible()


class Forgetting(MemoryStorage):
    def barrier(self, pending: object) -> None:
        pass


class Swallowing(MemoryStorage):
    def barrier(self, pending: Any) -> None:
        try:
            super().barrier(pending)
        except ObjectExists:
            return


class ListingPrefixesByLetters(MemoryStorage):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (found for found in super().list("") if found.name.startswith(prefix))


class ListingByComponents(MemoryStorage):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(sorted(super().list(prefix), key=lambda found: found.name.split("/")))


class ListingOneAnswer(MemoryStorage):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(list(super().list(prefix))[:1000])


class FailingBehindTheEnd(MemoryStorage):
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if offset > self.size(name):
            raise PerdureError("no such range")
        return super().read_range(name, offset, length)


class SortingRanges(MemoryStorage):
    def read_ranges(self, name: str, ranges: Any) -> Any:
        return super().read_ranges(name, sorted(ranges))


class ReadingNothing(MemoryStorage):
    def read(self, name: str) -> bytes:
        return self.shared.objects[name].content if name in self.shared.objects else b""


class HidingInsteadOfDeleting(MemoryStorage):
    def __init__(self, shared: MemoryObjects) -> None:
        super().__init__(shared)
        self.hidden: set[str] = set()

    def delete(self, *names: str) -> None:
        self.hidden.update(names)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (found for found in super().list(prefix) if found.name not in self.hidden)


class KeepingLeasesToItself(MemoryStorage):
    def __init__(self, shared: MemoryObjects) -> None:
        super().__init__(shared)
        self.own: list[str] = []

    def lease(self, name: str) -> Any:
        self.own.append(name)
        return super().lease(name)

    def leases(self) -> list[LeaseInfo]:
        return [lease for lease in super().leases() if lease.name in self.own]


class ListingLeases(MemoryStorage):
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from (ObjectInfo(f"leases/{name}", 0) for name in self.shared.leases)
        yield from super().list(prefix)


class NeverOld(MemoryStorage):
    def leases(self) -> list[LeaseInfo]:
        return [LeaseInfo(lease.name, 0.0) for lease in super().leases()]


class ClaimingImmutability(MemoryStorage):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=False, immutable=True)

    def retain(self, name: str, until_ns: int) -> None:
        self.size(name)


class Shortening(MemoryStorage):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=False, immutable=True)

    def retain(self, name: str, until_ns: int) -> None:
        found = self.shared.objects[name]
        self.shared.objects[name] = MemoryObject(found.content, found.modified_ns, until_ns)


class RetainingNothingQuietly(MemoryStorage):
    def retain(self, name: str, until_ns: int) -> None:
        pass


class ClaimingLiveness(MemoryStorage):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=False, liveness=True)


class ClaimingToBeLocal(MemoryStorage):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=True)


class Unlocked(MemoryStorage):
    """Looks first and writes later, as one does without create-if-absent."""

    def _put(self, name: str, content: bytes) -> None:
        if name in self.shared.objects:
            raise ObjectExists(name)
        _let_others_run()
        self.shared.objects[name] = MemoryObject(content, self.clock.now_ns)


def _let_others_run() -> None:
    """Give up the interpreter's lock, so that every thread has looked before the first one writes."""
    import time

    time.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "immutable", "check"),
    [
        (Overwriting, False, "test_a_name_is_given_once"),
        (SayingYesToEqualContent, False, "test_a_name_is_given_once"),
        (Unlocked, False, "test_of_many_threads_exactly_one_gets_a_name"),
        (ShowingEarly, False, "test_nothing_is_visible_before_it_is_published"),
        (Forgetting, False, "test_nothing_is_visible_before_it_is_published"),
        (Swallowing, False, "test_a_failed_publication_is_reported_by_its_own_barrier_only"),
        (ListingPrefixesByLetters, False, "test_a_prefix_is_made_of_whole_components"),
        (ListingByComponents, False, "test_every_name_comes_back_as_it_was_given"),
        (ListingOneAnswer, False, "test_long_listings_are_complete"),
        (FailingBehindTheEnd, False, "test_ranges_end_with_the_object"),
        (SortingRanges, False, "test_many_ranges_are_read_as_each_by_itself"),
        (ReadingNothing, False, "test_what_is_missing_is_said_to_be_missing"),
        (HidingInsteadOfDeleting, False, "test_a_deleted_name_can_be_given_again"),
        (KeepingLeasesToItself, False, "test_a_lease_is_seen_until_it_is_released"),
        (ListingLeases, False, "test_leases_are_no_part_of_the_pool"),
        (NeverOld, False, "test_an_idle_lease_grows_old_until_it_is_renewed"),
        (ClaimingImmutability, False, "test_immutability_is_no_lie"),
        (RetainingNothingQuietly, False, "test_immutability_is_no_lie"),
        (Shortening, True, "test_retention_is_never_shortened"),
        (ClaimingLiveness, False, "test_liveness_is_no_lie"),
        (ClaimingToBeLocal, False, "test_local_is_no_lie"),
    ],
    ids=lambda value: value.__name__ if inspect.isclass(value) else None,
)
def test_the_suite_finds_a_storage_that_lies(
    kind: type[MemoryStorage], immutable: bool, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every promise that is broken, and every capability that is claimed without being there, fails its check."""
    monkeypatch.setattr("perdure.testing.storage_contract._PATIENCE_S", 0.2)

    with pytest.raises((AssertionError, PerdureError, pytest.fail.Exception)):
        getattr(StorageContract(), check)(in_memory(kind, immutable=immutable))


def test_publications_happen_in_their_barrier() -> None:
    """The storage in memory shows a published object only when somebody has waited for it."""
    storage = MemoryStorage()
    staged = storage.stage()
    staged.write(b"x")
    publication: Pending = storage.publish(staged, "a")
    assert list(storage.list("")) == []

    storage.barrier([publication])
    storage.barrier([publication])

    assert storage.read("a") == b"x"
