"""Changing the keys of a pool: what opens it afterwards, after a crash at any step, and beside another change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure.model.errors import Damaged, NotFound, Partial, PoolUnusable, Refused
from perdure.model.points import DataSource
from perdure.repository.container import Kind, create_sealed, read_sealed
from perdure.repository.key_changes import KeyChange, PoolKeys, list_slots
from perdure.repository.key_sets import open_ring, read_keys
from perdure.repository.keys import KeyFile, KeyRing, Passphrase, RecoveryKey, Secret, UnknownKeyEpoch
from perdure.repository.opening import create_pool, open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.contract import Buffer, Capabilities, ObjectExists, ObjectInfo, ObjectMissing, StorageFailed

OLD, NEW, OTHER = Passphrase(b"old words"), Passphrase(b"new words"), Passphrase(b"other words")
FILE, SECOND_FILE = KeyFile(b"f" * 32), KeyFile(b"g" * 32)
PAPER, OTHER_PAPER = RecoveryKey(b"p" * 32), RecoveryKey(b"q" * 32)


class MemoryStaged:
    """An object under construction."""

    def __init__(self) -> None:
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, *buffers: Buffer) -> None:
        self.data += b"".join(map(bytes, buffers))


class Memory:
    """A storage in memory, as far as keys and small objects need one: quick to copy, and atomic."""

    capabilities = Capabilities(local=False)
    url = "memory"

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})

    def stage(self) -> MemoryStaged:
        return MemoryStaged()

    def commit(self, staged: MemoryStaged, name: str) -> None:
        self.create(name, staged.data)

    def create(self, name: str, *buffers: Buffer) -> None:
        if name in self.objects:
            raise ObjectExists(name)
        self.objects[name] = b"".join(map(bytes, buffers))

    def read(self, name: str) -> bytes:
        if name not in self.objects:
            raise ObjectMissing(name)
        return self.objects[name]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        names = sorted(name for name in self.objects if not prefix or name.startswith(f"{prefix}/"))
        return iter([ObjectInfo(name, len(self.objects[name]), 1) for name in names])

    def delete(self, *names: str) -> None:
        for name in names:
            self.objects.pop(name, None)


class Cut(BaseException):
    """The process is gone: nothing in it may handle this."""


class Steps:
    """A storage that does something of its own before or after its N-th step, once."""

    def __init__(self, inner: Memory, at: int, *, after: bool, do: Callable[[], None]) -> None:
        self.inner = inner
        self.at = at
        self.after = after
        self.do = do
        self.step = 0
        self.reached = False
        self.capabilities = inner.capabilities
        self.url = inner.url

    def _around(self, work: Callable[[], object]) -> object:
        number, self.step = self.step, self.step + 1
        if number == self.at and not self.after:
            self._do()
        result = work()
        if number == self.at and self.after:
            self._do()
        return result

    def _do(self) -> None:
        self.reached = True
        self.do()

    def create(self, name: str, *buffers: Buffer) -> None:
        self._around(lambda: self.inner.create(name, *buffers))

    def delete(self, *names: str) -> None:
        for name in names:
            self._around(lambda name=name: self.inner.delete(name))

    def read(self, name: str) -> bytes:
        found = self._around(lambda: self.inner.read(name))
        assert isinstance(found, bytes)
        return found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = self._around(lambda: list(self.inner.list(prefix)))
        assert isinstance(found, list)
        return iter(found)


class Dying(Steps):
    """A storage whose process dies before or after its N-th step."""

    def __init__(self, inner: Memory, at: int, *, after: bool) -> None:
        super().__init__(inner, at, after=after, do=self._die)
        self.dead = False

    def _die(self) -> None:
        self.dead = True
        raise Cut

    def _around(self, work: Callable[[], object]) -> object:
        if self.dead:
            raise Cut
        return super()._around(work)


@dataclass
class Scene:
    """A pool that opens with OLD, FILE and PAPER and holds an object from before."""

    storage: Memory
    pool: bytes

    def copy(self) -> Scene:
        return Scene(Memory(self.storage.objects), self.pool)

    def keys(self, secret: Secret) -> PoolKeys:
        return PoolKeys.open(self.storage, secret, self.pool)

    def ring(self, secret: Secret) -> KeyRing:
        return open_ring(self.storage, secret, self.pool)

    def opens(self, secret: Secret) -> bool:
        held = read_keys(self.storage)
        if not list(held.opened_by(secret, self.pool)):
            return False
        ring = self.ring(secret)
        assert read_sealed(self.storage, "before", Kind.POINT, ring) == b"precious"
        return True

    def ways(self) -> list[str]:
        """Kinds of the slots that count, each of which must be sound."""
        slots, _ = list_slots(self.storage)
        assert not any(slot.damaged for slot in slots)
        return sorted(slot.kind for slot in slots)

    def leftovers(self) -> set[str]:
        """Objects below ``keys/`` that do not count, and are not sets."""
        held = read_keys(self.storage)
        return {name for name in held.listed if name.removesuffix(".copy") not in held.names}


def silent(_change: KeyChange) -> None:
    """Nobody looks."""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    storage = Memory()
    made, paper = create_pool(storage, OLD.text, tmp_path / "cache")
    scene = Scene(storage, bytes.fromhex(made.id))
    create_sealed(storage, "before", Kind.POINT, made.keys, b"precious")
    scene.keys(RecoveryKey.parse(paper)).replace_recovery_key(PAPER, silent)
    scene.keys(OLD).add_key_file(FILE)
    assert scene.ways() == ["keyfile", "passphrase", "recovery"]
    return scene


# --- what each change does ---


def test_a_new_passphrase_replaces_the_old_one(scene: Scene) -> None:
    """The old passphrase opens nothing any more, its slot is gone, and every other way in stays."""
    change = scene.keys(OLD).change_passphrase(NEW)

    assert [slot.kind for slot in change.dropped] == ["passphrase"]
    assert [scene.opens(secret) for secret in (OLD, NEW, FILE, PAPER)] == [False, True, True, True]
    assert scene.leftovers() == set()


@pytest.mark.parametrize("way", [FILE, PAPER], ids=["key file", "recovery key"])
def test_a_lost_passphrase_is_replaced_with_what_is_left(scene: Scene, way: Secret) -> None:
    """A key file or the recovery key is enough to give the pool a new passphrase."""
    scene.keys(way).change_passphrase(NEW)

    assert [scene.opens(secret) for secret in (OLD, NEW, way)] == [False, True, True]


def test_key_files_come_and_go(scene: Scene) -> None:
    """Several key files open a pool, and each is removed by its slot's id."""
    added = scene.keys(OLD).add_key_file(SECOND_FILE).added[0]
    assert scene.opens(SECOND_FILE)

    scene.keys(OLD).remove(added.id)

    assert [scene.opens(secret) for secret in (OLD, FILE, SECOND_FILE)] == [True, True, False]
    assert scene.leftovers() == set()


def test_a_new_recovery_key_is_shown_before_the_old_one_ceases_to_work(scene: Scene) -> None:
    """While the new key is shown the old one still opens the pool; afterwards only the new one does."""
    seen = []

    def look(_change: KeyChange) -> None:
        seen.append((scene.opens(PAPER), scene.opens(OTHER_PAPER)))

    scene.keys(OLD).replace_recovery_key(OTHER_PAPER, look)

    assert seen == [(True, False)]
    assert [scene.opens(secret) for secret in (PAPER, OTHER_PAPER)] == [False, True]


def test_a_recovery_key_that_could_not_be_shown_changes_nothing(scene: Scene) -> None:
    """When the output is gone the earlier recovery key stays in force."""

    def fail(_change: KeyChange) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        scene.keys(OLD).replace_recovery_key(OTHER_PAPER, fail)

    assert [scene.opens(secret) for secret in (PAPER, OTHER_PAPER)] == [True, False]
    assert scene.leftovers() == set()


def test_the_way_that_was_used_is_never_removed(scene: Scene) -> None:
    """A way in goes only when another one is known to work, so the last one never does."""
    ids = {slot.kind: slot.id for slot in list_slots(scene.storage)[0]}

    with pytest.raises(Refused) as caught:
        scene.keys(OLD).remove(ids["passphrase"])
    assert caught.value.code == "last-way-in"
    with pytest.raises(NotFound) as missing:
        scene.keys(OLD).remove("nothing")
    assert missing.value.code == "slot-not-found"

    scene.keys(FILE).remove(f"passphrase-{ids['passphrase']}")
    scene.keys(FILE).remove(ids["recovery"])
    with pytest.raises(Refused):
        scene.keys(FILE).remove(ids["keyfile"])
    assert scene.ways() == ["keyfile"]
    assert scene.opens(FILE)


def test_an_old_pool_opens_and_changes(tmp_path: Path) -> None:
    """A pool that never changed its keys has no key set, and one master key; it gets its set with the first change."""
    storage = Memory()
    made, paper = create_pool(storage, OLD.text, tmp_path / "cache")
    pool = bytes.fromhex(made.id)
    assert not [found.name for found in storage.list("keys") if "set" in found.name]
    assert open_ring(storage, RecoveryKey.parse(paper), pool).newest_epoch == 0

    PoolKeys.open(storage, OLD, pool).change_passphrase(NEW)

    assert open_ring(storage, RecoveryKey.parse(paper), pool).newest_epoch == 0
    assert open_ring(storage, NEW, pool).newest_epoch == 0
    with pytest.raises(PoolUnusable):
        open_ring(storage, OLD, pool)


# --- rotation ---


def test_a_rotation_seals_what_is_new_and_leaves_what_is_old_readable(scene: Scene) -> None:
    """New objects need the new master key, old ones are read as before, and chunk ids stay."""
    earlier = scene.ring(OLD)
    scene.keys(OLD).rotate(OTHER_PAPER, [FILE], silent, yes=False)
    later = scene.ring(FILE)
    create_sealed(scene.storage, "after", Kind.POINT, later, b"fresh")

    assert later.newest_epoch == 1
    assert later.content_id(b"x") == earlier.content_id(b"x")
    assert [scene.opens(secret) for secret in (OLD, FILE, PAPER, OTHER_PAPER)] == [True, True, False, True]
    assert read_sealed(scene.storage, "after", Kind.POINT, scene.ring(OTHER_PAPER)) == b"fresh"
    assert scene.leftovers() == set()


def test_a_rotation_does_not_drop_a_key_file_unasked(scene: Scene) -> None:
    """A key file that was not given is named and needs a yes; then it no longer opens the pool."""
    with pytest.raises(Refused) as caught:
        scene.keys(OLD).rotate(OTHER_PAPER, [], silent, yes=False)
    assert caught.value.code == "confirmation-needed"
    assert "keyfile-" in caught.value.message
    assert scene.ring(OLD).newest_epoch == 0

    scene.keys(OLD).rotate(OTHER_PAPER, [], silent, yes=True)

    assert [scene.opens(secret) for secret in (OLD, FILE, OTHER_PAPER)] == [True, False, True]


def test_a_rotation_takes_no_strange_key(scene: Scene) -> None:
    """What shall go on opening the pool must open it before."""
    with pytest.raises(PoolUnusable) as caught:
        scene.keys(OLD).rotate(OTHER_PAPER, [FILE, SECOND_FILE], silent, yes=True)
    assert caught.value.code == "wrong-passphrase"


def test_rotations_add_up(scene: Scene) -> None:
    """After several rotations objects of every epoch are read."""
    for number in range(1, 5):
        scene.keys(OLD).rotate(OTHER_PAPER, [FILE], silent, yes=False)
        create_sealed(scene.storage, f"after{number}", Kind.POINT, scene.ring(OLD), b"%d" % number)

    scene.keys(FILE).change_passphrase(NEW)

    ring = scene.ring(NEW)
    assert [read_sealed(scene.storage, f"after{n}", Kind.POINT, ring) for n in range(1, 5)] == [b"1", b"2", b"3", b"4"]
    assert scene.opens(NEW)


def test_the_number_of_master_keys_has_an_end(scene: Scene) -> None:
    """The epoch is one byte; the rotation after the last is refused."""
    keys = scene.keys(OLD)
    full = PoolKeys(keys.storage, keys.pool, OLD, keys.held, keys.masters * 256, keys.opened)

    with pytest.raises(Refused) as caught:
        full.rotate(OTHER_PAPER, [FILE], silent, yes=True)
    assert caught.value.code == "too-many-key-epochs"


def test_a_running_process_reads_what_is_written_after_a_rotation(scene: Scene) -> None:
    """Keys that were read before a rotation are read again by themselves, as long as their secret still opens."""
    running, revoked = scene.ring(OLD), scene.ring(FILE)
    scene.keys(OLD).rotate(OTHER_PAPER, [], silent, yes=True)
    create_sealed(scene.storage, "after", Kind.POINT, scene.ring(OLD), b"fresh")

    assert read_sealed(scene.storage, "after", Kind.POINT, running) == b"fresh"
    assert running.newest_epoch == 1
    with pytest.raises(UnknownKeyEpoch) as caught:
        read_sealed(scene.storage, "after", Kind.POINT, revoked)
    assert caught.value.exit_status == PoolUnusable.exit_status
    assert read_sealed(scene.storage, "before", Kind.POINT, revoked) == b"precious"


def test_a_pool_object_says_that_its_keys_are_old_and_not_that_it_is_damaged(pool: Pool, tmp_path: Path) -> None:
    """An open pool whose secret was dropped refuses what is newer, and reports no damage."""
    storage, words = pool.storage, Passphrase(b"correct horse")
    key_file = KeyFile.random()
    identity = bytes.fromhex(pool.id)
    PoolKeys.open(storage, words, identity).add_key_file(key_file)
    stale = open_pool(storage, key_file, tmp_path / "stale")
    PoolKeys.open(storage, words, identity).rotate(PAPER, [], silent, yes=True)
    fresh = open_pool(storage, words, tmp_path / "fresh")
    fresh.register(DataSource(id="5" * 32, name="mail", workload="sqlite", location="/srv/mail.db"))

    for look in (stale.sources, lambda: verify_pool(stale)):
        with pytest.raises(UnknownKeyEpoch):
            look()
    assert stale.damage == []
    assert [source.name for source in pool.sources()] == ["mail"]
    assert verify_pool(fresh).sound


# --- damage ---


@pytest.mark.parametrize("twin", ["", ".copy"])
def test_one_damaged_copy_of_everything_changes_nothing(scene: Scene, twin: str) -> None:
    """With either copy of every slot and set damaged the pool opens, changes and rotates."""
    scene.keys(OLD).change_passphrase(NEW)
    for found in list(scene.storage.list("keys")):
        if found.name.endswith(".copy") == bool(twin):
            scene.storage.objects[found.name] = scene.storage.objects[found.name][:-3]

    assert [scene.opens(secret) for secret in (OLD, NEW, FILE, PAPER)] == [False, True, True, True]
    scene.keys(NEW).rotate(OTHER_PAPER, [FILE], silent, yes=False)
    assert [scene.opens(secret) for secret in (NEW, FILE, PAPER, OTHER_PAPER)] == [True, True, False, True]


def test_a_wholly_damaged_slot_is_told_from_a_wrong_secret(scene: Scene) -> None:
    """What cannot open because of damage says so; other ways open, and the damaged slot can be removed."""
    slot = next(slot for slot in list_slots(scene.storage)[0] if slot.kind == "keyfile")
    scene.storage.objects[f"keys/keyfile-{slot.id}"] = b"x"
    del scene.storage.objects[f"keys/keyfile-{slot.id}.copy"]

    with pytest.raises(Damaged):
        scene.ring(FILE)
    assert scene.opens(OLD)
    assert [found.kind for found in list_slots(scene.storage)[0] if found.damaged] == ["keyfile"]
    scene.keys(OLD).remove(slot.id)
    assert scene.ways() == ["passphrase", "recovery"]


def test_without_any_readable_set_the_slots_are_enough(scene: Scene) -> None:
    """Both copies of the newest set damaged: everything that opens still opens, and the next change repairs it."""
    scene.keys(OLD).rotate(OTHER_PAPER, [FILE], silent, yes=False)
    number = read_keys(scene.storage).number
    for twin in ("", ".copy"):
        scene.storage.objects[f"keys/set-{number:08d}{twin}"] = b"x"

    assert scene.ring(OLD).newest_epoch == 1
    assert scene.opens(FILE)
    scene.keys(FILE).change_passphrase(NEW)
    assert [scene.opens(secret) for secret in (OLD, NEW, FILE, OTHER_PAPER)] == [False, True, True, True]


def test_verification_finds_a_missing_and_a_damaged_slot(pool: Pool) -> None:
    """A slot that the key set names and that is gone is damage, and so is a damaged set."""
    PoolKeys.open(pool.storage, Passphrase(b"correct horse"), bytes.fromhex(pool.id)).add_key_file(FILE)
    assert verify_pool(pool).sound
    root = Path(pool.storage.url)
    slot = next(found.name for found in pool.storage.list("keys") if "keyfile" in found.name)
    pool.storage.delete(slot, f"{slot}.copy")
    (root / "keys/set-00000002").write_bytes(b"x")

    found = {damage.object for damage in verify_pool(pool).damage}

    assert found == {slot, "keys/set-00000002"}


# --- crashes ---

CHANGES: dict[str, tuple[Callable[[PoolKeys], KeyChange], Secret | None, Secret | None]] = {
    # Name: the change, a secret that ceases to open the pool, a secret that begins to.
    "passphrase": (lambda keys: keys.change_passphrase(NEW), OLD, NEW),
    "key file": (lambda keys: keys.add_key_file(SECOND_FILE), None, SECOND_FILE),
    "recovery key": (lambda keys: keys.replace_recovery_key(OTHER_PAPER, silent), PAPER, OTHER_PAPER),
    "remove": (lambda keys: keys.remove(_id(keys, "keyfile")), FILE, None),
    "rotate": (lambda keys: keys.rotate(OTHER_PAPER, [FILE], silent, yes=False), PAPER, OTHER_PAPER),
    "rotate and drop": (lambda keys: keys.rotate(OTHER_PAPER, [], silent, yes=True), FILE, OTHER_PAPER),
}


def _id(keys: PoolKeys, kind: str) -> str:
    return next(slot.id for slot in list_slots(keys.storage)[0] if slot.kind == kind)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("young", [False, True], ids=["changed before", "never changed"])
def test_a_process_that_dies_at_any_step_leaves_a_way_in(scene: Scene, name: str, after: bool, young: bool) -> None:
    """Cut before or after every storage call: what should open opens, old data is read, a second run completes."""
    change, leaving, coming = CHANGES[name]
    if young:
        _forget_sets(scene)
    for at in itertools.count():
        cut = scene.copy()
        storage = Dying(cut.storage, at, after=after)
        try:
            change(PoolKeys.open(storage, OLD, cut.pool))
        except Cut:
            pass
        else:
            break

        stays = {secret for secret in (OLD, FILE, PAPER) if secret != leaving}
        if name == "rotate and drop":
            stays.discard(PAPER)
        assert all(cut.opens(secret) for secret in stays)
        done = (not cut.opens(leaving)) if leaving is not None else coming is not None and cut.opens(coming)
        assert coming is None or cut.opens(coming) == done
        rings = [cut.ring(secret) for secret in stays]
        create_sealed(cut.storage, "after", Kind.POINT, rings[0], b"fresh")
        assert all(read_sealed(cut.storage, "after", Kind.POINT, ring) == b"fresh" for ring in rings)

        if name == "remove" and done:
            continue
        change(cut.keys(NEW if leaving == OLD and done else OLD))
        assert all(cut.opens(secret) for secret in stays)
        assert coming is None or cut.opens(coming)
        assert leaving is None or not cut.opens(leaving)
        assert cut.leftovers() == set()
        assert read_sealed(cut.storage, "after", Kind.POINT, cut.ring(coming or OLD)) == b"fresh"
    assert at > 5


def _forget_sets(scene: Scene) -> None:
    """Make the pool look as if its keys had never been changed."""
    for found in list(scene.storage.list("keys")):
        if "/set-" in found.name:
            scene.storage.delete(found.name)


def test_a_slot_that_does_not_read_back_is_never_relied_on(scene: Scene) -> None:
    """A new slot is opened from the storage before the old one ceases to count; otherwise nothing changes."""
    fresh: set[str] = set()

    class Lying(Steps):
        def read(self, name: str) -> bytes:
            data = super().read(name)
            return data[:-1] + bytes([data[-1] ^ 1]) if name in fresh else data

        def create(self, name: str, *buffers: Buffer) -> None:
            fresh.add(name)
            super().create(name, *buffers)

    with pytest.raises(Damaged):
        PoolKeys.open(Lying(scene.storage, -1, after=False, do=lambda: None), OLD, scene.pool).change_passphrase(NEW)

    assert [scene.opens(secret) for secret in (OLD, NEW)] == [True, False]
    assert scene.leftovers() == set()


def test_a_change_whose_commit_is_in_doubt_deletes_nothing(scene: Scene) -> None:
    """When the storage fails although it wrote the set, the new way in works."""

    def fail() -> None:
        raise StorageFailed("the answer was lost")

    keys = scene.keys(OLD)
    for at in itertools.count():
        storage = Steps(scene.storage, at, after=True, do=fail)
        doubtful = PoolKeys(storage, keys.pool, OLD, keys.held, keys.masters, keys.opened)
        with pytest.raises(StorageFailed):
            doubtful.change_passphrase(NEW)
        if read_keys(scene.storage).number > keys.held.number:
            break
        assert scene.opens(OLD)

    assert [scene.opens(secret) for secret in (OLD, NEW)] == [False, True]


def test_old_slots_that_cannot_be_deleted_are_told(scene: Scene) -> None:
    """The change is in force, and the person is told that something is left of the old passphrase."""

    class Sticky(Steps):
        def delete(self, *names: str) -> None:
            raise StorageFailed("locked")

    with pytest.raises(Partial) as caught:
        PoolKeys.open(Sticky(scene.storage, -1, after=False, do=lambda: None), OLD, scene.pool).change_passphrase(NEW)

    assert caught.value.code == "old-keys-left"
    assert [scene.opens(secret) for secret in (OLD, NEW)] == [False, True]
    assert len(scene.leftovers()) == 2
    scene.keys(NEW).remove(_id(scene.keys(NEW), "recovery"))
    assert scene.leftovers() == set()


# --- two at once ---

PAIRS: dict[str, tuple[Callable[[Scene], KeyChange], Callable[[PoolKeys], KeyChange], Secret]] = {
    # Name: what runs in between, what runs around it, and what the latter opens the pool with.
    "two passphrases": (
        lambda s: s.keys(OLD).change_passphrase(OTHER),
        lambda keys: keys.change_passphrase(NEW),
        OLD,
    ),
    "each removes the other's way": (
        lambda s: s.keys(OLD).remove(_id(s.keys(OLD), "keyfile")),
        lambda keys: keys.remove(_id(keys, "passphrase")),
        FILE,
    ),
    "two rotations": (
        lambda s: s.keys(OLD).rotate(OTHER_PAPER, [FILE], silent, yes=False),
        lambda keys: keys.rotate(PAPER, [OLD], silent, yes=False),
        FILE,
    ),
    "a key file beside a rotation": (
        lambda s: s.keys(OLD).rotate(OTHER_PAPER, [FILE], silent, yes=False),
        lambda keys: keys.add_key_file(SECOND_FILE),
        FILE,
    ),
    "a rotation beside a passphrase": (
        lambda s: s.keys(FILE).change_passphrase(NEW),
        lambda keys: keys.rotate(OTHER_PAPER, [FILE], silent, yes=False),
        OLD,
    ),
}


REFUSALS = ("keys-changed", "wrong-passphrase", "last-way-in", "slot-not-found", "confirmation-needed")


@pytest.mark.parametrize("young", [False, True], ids=["changed before", "never changed"])
@pytest.mark.parametrize("name", PAIRS)
def test_two_changes_at_once_never_lock_anybody_out(scene: Scene, name: str, young: bool) -> None:
    """One change runs wholly inside the other, at every step of it: every slot that counts is sound, data is read."""
    inner, outer, way = PAIRS[name]
    if young:
        _forget_sets(scene)
    for at in itertools.count():
        both = scene.copy()
        refusals: list[str] = []

        def meanwhile(both: Scene = both, refusals: list[str] = refusals) -> None:
            try:
                inner(both)
            except (Refused, PoolUnusable) as error:
                refusals.append(error.code)
            secret = next(secret for secret in (OLD, NEW, OTHER, FILE) if both.opens(secret))
            create_sealed(both.storage, "meanwhile", Kind.POINT, both.ring(secret), b"fresh")

        storage = Steps(both.storage, at, after=False, do=meanwhile)
        try:
            outer(PoolKeys.open(storage, way, both.pool))
        except (Refused, PoolUnusable) as error:
            refusals.append(error.code)
        if not storage.reached:
            assert refusals == []
            break

        # Each may find that the other was there before, and then has changed nothing; they never both give way.
        assert refusals in ([], *([code] for code in REFUSALS))
        assert both.ways()
        everybody = (OLD, NEW, OTHER, FILE, SECOND_FILE, PAPER, OTHER_PAPER)
        opening = [secret for secret in everybody if both.opens(secret)]
        assert {secret.kind for secret in opening} == set(both.ways())
        for secret in opening:
            assert read_sealed(both.storage, "meanwhile", Kind.POINT, both.ring(secret)) == b"fresh"
    assert at > 5
