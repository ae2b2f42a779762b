"""Every promise of :mod:`perdure.storage.contract` as a test, for any back end.

Derive a test class and tell it how to open the storage::

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def subject(self, tmp_path):
            return Subject(lambda: MyStorage(tmp_path), url=str(tmp_path))

What a back end claims in its capabilities it must prove; a claim that cannot be proved here counts as a lie.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Event

import pytest

from perdure.model.errors import Refused
from perdure.storage.contract import LeaseInfo, ObjectExists, ObjectLocked, ObjectMissing, Staged, Storage

__all__ = ["NAMES", "StorageContract", "Subject"]

NAMES = (
    "pool",
    "pool.copy",
    "keys/passphrase-0a1b2c3d.copy",
    "packs/ff/ff00000000000000000000000000000000",
    "packs/f",
    "logs/0123abcd/00000001-0000000000000000-00000000000003e8",
    "a-b/c",
    "a/b",
    "a b/ü",
    "a.copy",
    "percent%41",
    "question?x=1",
    "hash#1",
    "colon:1",
    "tilde~1",
    "plus+1",
    "star*1",
    "quote'\"",
    "amp&1",
    "deep/er/and/deep/er",
)
"""Names that pools use, and names that a careless back end would change or sort wrongly."""

_BAD_NAMES = ("", "/a", "a/", "a//b", "../a", "a/..", ".", "tmp/x", "leases/x", "back\\slash", "new\nline")
_LARGE = 24 << 20
_PATIENCE_S = 90

_RACER = """
import sys
from perdure.storage.contract import ObjectExists
from perdure.storage.opening import open_storage
storage, number = open_storage(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for line in sys.stdin:
    name = line.strip()
    try:
        storage.create(name, number.encode())
    except ObjectExists:
        print("lost", flush=True)
    else:
        print("won", flush=True)
"""
_HOLDER = """
import sys
from perdure.storage.opening import open_storage
lease = open_storage(sys.argv[1]).lease(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Subject:
    """A back end under test.

    Args:
        open: Opens another client of one storage, which is empty at first.
        url: What :func:`perdure.storage.opening.open_storage` opens in another process, if it can.
        now_ns: What the storage's clock shows.
        advance: Moves the storage's clock; ``None`` if time passes by itself.
        many: Objects of a long listing; more than one answer of an object store has.
    """

    open: Callable[[], Storage]
    url: str | None = None
    now_ns: Callable[[], int] = time.time_ns
    advance: Callable[[float], None] | None = None
    many: int = 1050

    def until(self, happened: Callable[[], bool]) -> None:
        """Let the storage's time pass until something has happened."""
        deadline = time.monotonic() + _PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                raise AssertionError("what had to happen in time did not")
            if self.advance is not None:
                self.advance(0.5)
            else:
                time.sleep(0.05)


class StorageContract:
    """The promises. Every test gets a ``subject`` whose storage is empty."""

    # --- objects ---

    def test_an_object_reads_back_whole_and_in_parts(self, subject: Subject) -> None:
        """What was created is read by another client, whole and in ranges, and sized and listed."""
        subject.open().create("a/b", b"hello ", bytearray(b"wor"), memoryview(b"ld"))
        storage = subject.open()

        assert storage.read("a/b") == b"hello world"
        assert storage.read_range("a/b", 3, 5) == b"lo wo"
        assert storage.size("a/b") == 11
        assert [(found.name, found.size) for found in storage.list("")] == [("a/b", 11)]

    def test_ranges_end_with_the_object(self, subject: Subject) -> None:
        """A range beyond the end is cut off there, and one behind the end is empty."""
        storage = subject.open()
        storage.create("a", b"0123456789")

        assert storage.read_range("a", 6, 100) == b"6789"
        assert storage.read_range("a", 10, 5) == b""
        assert storage.read_range("a", 5000, 5) == b""
        assert storage.read_range("a", 3, 0) == b""

    def test_many_ranges_are_read_as_each_by_itself(self, subject: Subject) -> None:
        """Ranges come in the order asked for, overlapping, far apart, empty, and beyond the end."""
        storage, content = subject.open(), random.Random(3).randbytes(3 << 20)  # noqa: S311 (test data)
        storage.create("a", content)
        ranges = [(2_500_000, 1000), (0, 10), (5, 10), (0, 0), (1_000_000, 1_300_000), (len(content) - 3, 9)]
        ranges += [(len(content), 5), (10 * len(content), 5), (5, 10)]

        assert storage.read_ranges("a", ranges) == [content[at : at + length] for at, length in ranges]
        assert storage.read_ranges("a", []) == []

    def test_an_empty_object_is_an_object(self, subject: Subject) -> None:
        """An object without bytes exists, created as well as staged."""
        storage = subject.open()
        storage.create("created")
        storage.commit(storage.stage(), "staged")

        assert storage.read("created") == storage.read("staged") == b""
        assert storage.size("created") == 0
        assert storage.read_range("created", 0, 10) == b""
        assert [found.size for found in storage.list("")] == [0, 0]

    def test_large_objects_come_back_whole(self, subject: Subject) -> None:
        """Objects of many megabytes, several on their way at a time, are what was written."""
        storage, content = subject.open(), random.Random(5).randbytes(_LARGE)  # noqa: S311 (test data)
        pending = []
        for number in range(3):
            staged = storage.stage()
            for at in range(0, _LARGE, 1 << 20):
                staged.write(content[at : at + (1 << 20)], bytes([number]))
            pending.append(storage.publish(staged, f"packs/{number}"))
        storage.barrier(pending)

        reader = subject.open()
        for number in range(3):
            expected = b"".join(content[at : at + (1 << 20)] + bytes([number]) for at in range(0, _LARGE, 1 << 20))
            assert reader.read(f"packs/{number}") == expected
            assert reader.read_range(f"packs/{number}", _LARGE - 100, 50) == expected[_LARGE - 100 : _LARGE - 50]

    def test_what_is_missing_is_said_to_be_missing(self, subject: Subject) -> None:
        """Every way to read an object that is not there says so; removing it does nothing."""
        storage = subject.open()
        storage.create("there/is", b"another")

        for read in (
            lambda: storage.read("no"),
            lambda: storage.read_range("no", 0, 1),
            lambda: storage.read_range("no", 0, 0),
            lambda: storage.read_ranges("no", [(0, 1), (5, 1)]),
            lambda: storage.read_ranges("no", []),
            lambda: storage.size("no"),
            lambda: storage.read("there"),
        ):
            with pytest.raises(ObjectMissing):
                read()
        storage.delete("no")
        storage.delete()

        assert storage.read("there/is") == b"another"

    @pytest.mark.parametrize("name", _BAD_NAMES)
    def test_names_cannot_leave_the_pool(self, subject: Subject, name: str) -> None:
        """What is no name is refused, and so is what storages keep for themselves."""
        storage = subject.open()
        with pytest.raises(ValueError, match="not an object name"):
            storage.create(name, b"")
        with pytest.raises(ValueError, match="not an object name"):
            storage.read(name)
        with pytest.raises(ValueError, match="not an object name"):
            storage.delete(name)

    # --- names are given once ---

    def test_a_name_is_given_once(self, subject: Subject) -> None:
        """A second object of the same name is refused, however it is written, and changes nothing."""
        storage = subject.open()
        storage.create("a", b"first")

        for content in (b"second", b"first"):
            with pytest.raises(ObjectExists):
                storage.create("a", content)
        with pytest.raises(ObjectExists):
            storage.commit(_staged(storage, b"third"), "a")
        with pytest.raises(ObjectExists):
            storage.barrier([storage.publish(_staged(storage, b"fourth"), "a")])

        assert subject.open().read("a") == b"first"
        assert [(found.name, found.size) for found in storage.list("")] == [("a", 5)]

    def test_of_many_threads_exactly_one_gets_a_name(self, subject: Subject) -> None:
        """Create-if-absent holds between threads with clients of their own, also for equal contents."""
        racers, start = 8, Barrier(8)
        clients = [subject.open() for _ in range(racers)]

        def race(number: int) -> list[int]:
            won = []
            for heat in range(3):
                start.wait()
                try:
                    clients[number].create(f"heat/{heat}", b"same" if heat % 2 else bytes([number]) * 1000)
                except ObjectExists:
                    continue
                won.append(heat)
            return won

        with ThreadPoolExecutor(racers) as threads:
            won = sorted(heat for each in threads.map(race, range(racers)) for heat in each)

        assert won == [0, 1, 2]

    def test_of_many_processes_exactly_one_gets_a_name(self, subject: Subject) -> None:
        """Create-if-absent holds between processes."""
        if subject.url is None:
            pytest.skip("this storage cannot be opened by another process")
        racers = [_process(_RACER, subject.url, str(number)) for number in range(4)]
        try:
            for racer in racers:
                assert _said(racer) == "ready"
            for heat in range(5):
                for racer in racers:
                    _tell(racer, f"heat/{heat}")
                answers = [_said(racer) for racer in racers]

                assert sorted(answers) == ["lost", "lost", "lost", "won"]
                assert subject.open().read(f"heat/{heat}") == str(answers.index("won")).encode()
        finally:
            for racer in racers:
                racer.communicate()

    def test_a_failed_publication_is_reported_by_its_own_barrier_only(self, subject: Subject) -> None:
        """The barrier of one capture neither hides nor raises the failure of another, nor loses what did succeed."""
        storage = subject.open()
        storage.create("taken", b"")
        bad = storage.publish(_staged(storage, b"x"), "taken")
        good, other = (storage.publish(_staged(storage, b"y"), name) for name in ("free", "other"))

        storage.barrier([good])

        with pytest.raises(ObjectExists):
            storage.barrier([bad, other])
        assert subject.open().read("free") == subject.open().read("other") == b"y"

    # --- whole or not at all ---

    def test_nothing_is_visible_before_it_is_published(self, subject: Subject) -> None:
        """What is staged is seen by nobody; after the barrier it is."""
        storage, other = subject.open(), subject.open()
        staged = _staged(storage, bytes(3 << 20))

        assert staged.size == 3 << 20
        assert list(other.list("")) == []

        storage.barrier([storage.publish(staged, "packs/x")])

        assert [found.name for found in other.list("")] == ["packs/x"]

    def test_what_is_discarded_never_appears(self, subject: Subject) -> None:
        """A staged object that was given up leaves nothing; giving it up twice is fine."""
        storage = subject.open()
        for size in (10, 3 << 20):
            staged = _staged(storage, bytes(size))
            staged.discard()
            staged.discard()

        assert list(storage.list("")) == []

    def test_a_reader_sees_all_of_an_object_or_none_of_it(self, subject: Subject) -> None:
        """While a large object is published, another client finds it missing or whole, never in part."""
        storage, other, published = subject.open(), subject.open(), Event()

        def watch() -> set[int]:
            seen = set()
            while not published.is_set():
                seen |= {found.size for found in other.list("packs")}
                try:
                    seen.add(len(other.read("packs/x")))
                except ObjectMissing:
                    continue
            return seen

        with ThreadPoolExecutor(1) as thread:
            watching = thread.submit(watch)
            try:
                storage.barrier([storage.publish(_staged(storage, bytes(8 << 20)), "packs/x")])
            finally:
                published.set()

        assert watching.result() <= {8 << 20}

    def test_a_commit_does_not_wait_for_publications(self, subject: Subject) -> None:
        """A commit is durable on return although publications are under way that nobody has waited for."""
        storage = subject.open()
        pending = [storage.publish(_staged(storage, bytes(2 << 20)), f"packs/{n}") for n in range(3)]

        storage.commit(_staged(storage, b"log"), "logs/x")

        assert subject.open().read("logs/x") == b"log"
        storage.barrier(pending)

    def test_threads_do_not_disturb_each_other(self, subject: Subject) -> None:
        """Many threads write, publish and read through one client at the same time."""
        storage = subject.open()

        def work(number: int) -> bool:
            content = bytes([number]) * (number * 50_000)
            storage.barrier([storage.publish(_staged(storage, content), f"t/{number}/packs")])
            storage.create(f"t/{number}/record", content[:10])
            same = storage.read(f"t/{number}/packs") == content
            return same and [o.name for o in storage.list(f"t/{number}")] == [
                f"t/{number}/packs",
                f"t/{number}/record",
            ]

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(work, range(24)))

    # --- listing ---

    def test_every_name_comes_back_as_it_was_given(self, subject: Subject) -> None:
        """Names are listed as they were given, sorted as text, and lead back to their objects."""
        storage = subject.open()
        for name in NAMES:
            storage.create(name, name.encode())

        assert [found.name for found in subject.open().list("")] == sorted(NAMES)
        for name in NAMES:
            assert storage.read(name) == name.encode()

    def test_a_prefix_is_made_of_whole_components(self, subject: Subject) -> None:
        """A prefix lists what lies below it, and neither its namesakes nor itself."""
        storage = subject.open()
        for name in ("a/1", "a/b/2", "ab/3", "a.copy", "b/a/4", "c"):
            storage.create(name, b"")

        assert [found.name for found in storage.list("a")] == ["a/1", "a/b/2"]
        assert [found.name for found in storage.list("a/b")] == ["a/b/2"]
        assert list(storage.list("c")) == list(storage.list("nothing")) == []

    def test_long_listings_are_complete(self, subject: Subject) -> None:
        """A listing of more than one answer's worth shows everything once, and deleting all of it leaves nothing."""
        storage = subject.open()
        names = [f"many/{number:05}" for number in range(subject.many)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: storage.create(name, b"x"), names))

        assert [found.name for found in storage.list("many")] == names

        storage.delete(*names, "many/missing")

        assert list(storage.list("")) == []

    def test_a_listing_tells_when(self, subject: Subject) -> None:
        """The time of an object is that of the storage's clock, and later objects have no earlier time."""
        storage, before = subject.open(), subject.now_ns()
        storage.create("a", b"")
        storage.create("b", b"")

        first, second = (found.modified_ns for found in storage.list(""))
        assert abs(first - before) < 60 * 10**9
        assert first <= second

    # --- deleting ---

    def test_deleting_removes_what_is_named_only(self, subject: Subject) -> None:
        """Deleting some objects, and some that are not there, leaves the others alone."""
        storage = subject.open()
        for name in ("a", "b/c", "b/d", "e"):
            storage.create(name, b"x")

        storage.delete("missing", "b/c", "a", "b/missing")

        assert [found.name for found in subject.open().list("")] == ["b/d", "e"]
        with pytest.raises(ObjectMissing):
            storage.read("a")

    def test_a_deleted_name_can_be_given_again(self, subject: Subject) -> None:
        """After a delete has returned, its name is free."""
        storage = subject.open()
        storage.create("a", b"first")
        storage.delete("a")
        storage.create("a", b"second")

        assert subject.open().read("a") == b"second"

    # --- leases ---

    def test_a_lease_is_seen_until_it_is_released(self, subject: Subject) -> None:
        """Another client sees a lease from the moment it is taken, and no more once it is released, even if renewed."""
        storage, other = subject.open(), subject.open()
        assert list(other.leases()) == []

        first, second = storage.lease("00000001-aa"), storage.lease("00000002-bb")
        assert [lease.name for lease in other.leases()] == ["00000001-aa", "00000002-bb"]

        first.release()
        first.release()
        first.renew()
        assert [lease.name for lease in other.leases()] == ["00000002-bb"]
        second.release()

    def test_leases_are_no_part_of_the_pool(self, subject: Subject) -> None:
        """A lease is in no listing of objects."""
        storage = subject.open()
        lease = storage.lease("00000001-aa")
        list(storage.leases())

        assert list(subject.open().list("")) == []
        lease.release()
        assert list(storage.list("")) == []

    def test_an_idle_lease_grows_old_until_it_is_renewed(self, subject: Subject) -> None:
        """Age counts from the last renewal by the storage's clock; it stays zero where a holder is known to live."""
        storage, other = subject.open(), subject.open()
        lease = storage.lease("00000001-aa")
        try:
            if storage.capabilities.liveness:
                assert [found.idle_s for found in other.leases()] == [0.0]
                return
            subject.until(lambda: _only(other).idle_s >= 2)
            lease.renew()
            assert _only(other).idle_s < 2
        finally:
            lease.release()

    # --- capabilities are honest ---

    def test_local_is_no_lie(self, subject: Subject) -> None:
        """A storage that calls itself local has its objects as files on this machine."""
        storage = subject.open()
        storage.create("a/b", b"content")
        if storage.capabilities.local:
            file = Path(storage.url) / "a" / "b"
            assert file.is_file()
            assert file.read_bytes() == b"content"
        else:
            assert not Path(storage.url).exists()

    def test_liveness_is_no_lie(self, subject: Subject) -> None:
        """The lease of a killed process is gone at once where liveness is claimed, and stays where it is not."""
        storage = subject.open()
        if subject.url is None:
            assert not storage.capabilities.liveness, "liveness is claimed and cannot be proved"
            return
        holder = _process(_HOLDER, subject.url, "00000001-aa")
        assert _said(holder) == "held"
        assert [found.name for found in storage.leases()] == ["00000001-aa"]

        holder.kill()
        holder.communicate()

        remaining = [] if storage.capabilities.liveness else ["00000001-aa"]
        assert [found.name for found in storage.leases()] == remaining

    def test_immutability_is_no_lie(self, subject: Subject) -> None:
        """Where it is claimed, a retained object cannot be deleted; where it is not, retaining is refused."""
        storage = subject.open()
        storage.create("free", b"1")
        storage.create("kept", b"2")
        until = subject.now_ns() + 600 * 10**9
        if not storage.capabilities.immutable:
            with pytest.raises(Refused) as refused:
                storage.retain("kept", until)
            assert refused.value.code == "no-immutability"
            return
        storage.retain("kept", until)

        with pytest.raises(ObjectLocked):
            subject.open().delete("free", "kept")

        assert storage.read("kept") == b"2"
        assert [found.name for found in storage.list("")] == ["kept"]
        with pytest.raises(ObjectMissing):
            storage.retain("missing", until)

    def test_retention_is_never_shortened(self, subject: Subject) -> None:
        """Retaining to an earlier moment changes nothing; when the time is over, the object can be deleted."""
        storage = subject.open()
        if not storage.capabilities.immutable:
            pytest.skip("this storage does not claim immutability")
        storage.create("long", b"")
        storage.create("short", b"")
        storage.retain("long", subject.now_ns() + 600 * 10**9)
        storage.retain("long", subject.now_ns() + 10**9)
        storage.retain("short", subject.now_ns() + 3 * 10**9)

        with pytest.raises(ObjectLocked):
            storage.delete("short")
        subject.until(lambda: _deleted(storage, "short"))

        with pytest.raises(ObjectLocked):
            storage.delete("long")
        assert [found.name for found in storage.list("")] == ["long"]


def _staged(storage: Storage, content: bytes) -> Staged:
    staged = storage.stage()
    staged.write(content)
    return staged


def _only(storage: Storage) -> LeaseInfo:
    (lease,) = storage.leases()
    return lease


def _deleted(storage: Storage, name: str) -> bool:
    try:
        storage.delete(name)
    except ObjectLocked:
        return False
    return True


def _process(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
