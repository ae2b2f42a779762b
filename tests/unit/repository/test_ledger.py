"""The verification ledger: what it remembers, for how long, and beside whom it is written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from perdure.model.points import KnownDamage
from perdure.model.positions import Position
from perdure.repository.damage import Damage
from perdure.repository.index_segment import as_pack_ids
from perdure.repository.known_damage import known_damage
from perdure.repository.ledger import (
    Ledger,
    RunFindings,
    ledger_numbers,
    object_key,
    read_damage,
    read_ledger,
    write_findings,
)
from perdure.repository.pool import Pool
from perdure.repository.scrub import Target, by_age
from perdure.repository.verify import verify_pool
from perdure.storage.contract import ObjectExists, StorageReadOnly
from perdure.testing.hooked_storage import HookedStorage
from perdure.testing.small_images import MAIL, put_image

SECOND = 10**9


def keys(*numbers: int) -> list[bytes]:
    return [bytes([number]) * 16 for number in numbers]


def findings(begun_ns: int, listed: list[bytes], sound: dict[bytes, int] | None = None) -> RunFindings:
    return RunFindings(begun_ns, np.sort(as_pack_ids(listed)), dict(sound or {}))


def hurt(name: str, found_ns: int, *, points: tuple[tuple[str, int], ...] = ()) -> Damage:
    return Damage(name, "pack", "flipped", (), points, (b"c" * 32,), found_ns, by_reading=True)


def test_what_was_read_is_remembered_and_what_is_gone_drops_out(pool: Pool) -> None:
    """Times of two runs join; a pack that is gone is forgotten when a run is over, not before."""
    a, b, c = keys(1, 2, 3)
    first = findings(10 * SECOND, [a, b], {a: 11 * SECOND, b: 12 * SECOND})
    write_findings(pool.storage, pool.keys, first, final=True)
    second = findings(20 * SECOND, [b, c], {c: 21 * SECOND})

    write_findings(pool.storage, pool.keys, second, final=False)
    assert read_ledger(pool.storage, pool.keys).times_of(as_pack_ids([a, b, c])).tolist() == [11, 12, 21]
    write_findings(pool.storage, pool.keys, second, final=True)

    assert read_ledger(pool.storage, pool.keys).times_of(as_pack_ids([a, b, c])).tolist() == [0, 12, 21]
    assert len(ledger_numbers(pool.storage)) == 2


def test_nothing_is_written_when_nothing_changed(pool: Pool) -> None:
    """A run that finds what is known already adds no object to the pool."""
    run = findings(10 * SECOND, keys(1), {keys(1)[0]: 11 * SECOND})
    before = write_findings(pool.storage, pool.keys, run, final=True).number

    assert write_findings(pool.storage, pool.keys, run, final=True).number == before
    assert ledger_numbers(pool.storage) == [before]


def test_a_damaged_ledger_gives_way_to_the_one_before(pool: Pool) -> None:
    """The newest readable ledger counts; when none is readable everything counts as never read."""
    (a,) = keys(1)
    for moment in (1, 2, 3):
        write_findings(pool.storage, pool.keys, findings(0, [a], {a: moment * SECOND}), final=True)
    numbers = ledger_numbers(pool.storage)
    assert numbers == [2, 3]

    for number, time_s in zip(reversed(numbers), (2, 0), strict=True):
        path = Path(pool.storage.url) / f"checks/{number:08d}"
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(data)
        assert read_ledger(pool.storage, pool.keys).times_of(as_pack_ids(a)).tolist() == [time_s]


def test_of_two_runs_at_once_neither_loses_what_it_found(pool: Pool) -> None:
    """Whoever finds its number taken adds its part to what the other wrote."""
    a, b = keys(1, 2)
    hooked = HookedStorage(pool.storage)

    def meanwhile(call: str, names: tuple[str, ...]) -> None:
        if call == "commit" and names[0].startswith("checks/"):
            hooked.hook = lambda _call, _names: None
            write_findings(pool.storage, pool.keys, findings(10 * SECOND, [a, b], {a: 11 * SECOND}), final=True)

    hooked.hook = meanwhile
    mine = findings(10 * SECOND, [a, b], {b: 12 * SECOND})
    mine.hurt["packs/x"] = hurt("packs/x", 12 * SECOND)
    mine.read_hurt[object_key("packs/x")] = 12 * SECOND
    write_findings(hooked, pool.keys, mine, final=True)

    ledger = read_ledger(pool.storage, pool.keys)
    assert ledger.times_of(as_pack_ids([a, b])).tolist() == [11, 12]
    assert [damage.object for damage in ledger.damage] == ["packs/x"]
    assert ledger_numbers(pool.storage) == [1, 2]


def test_damage_stands_until_it_is_read_sound_or_gone(pool: Pool) -> None:
    """A run that does not read a damaged pack keeps what is known of it, with the day on which it was found."""
    (pack,) = keys(0xAB)
    name = f"packs/ab/{pack.hex()}"
    first = findings(10 * SECOND, [pack])
    first.structure = ()
    first.hurt[name], first.read_hurt[pack] = hurt(name, 11 * SECOND), 11 * SECOND
    write_findings(pool.storage, pool.keys, first, final=True)

    other = findings(20 * SECOND, [pack])
    other.structure = ()
    write_findings(pool.storage, pool.keys, other, final=True)
    assert [damage.found_ns for damage in read_damage(pool.storage, pool.keys)] == [11 * SECOND]

    again = findings(30 * SECOND, [pack])
    again.structure = ()
    again.hurt[name], again.read_hurt[pack] = hurt(name, 31 * SECOND), 31 * SECOND
    write_findings(pool.storage, pool.keys, again, final=True)
    assert [damage.found_ns for damage in read_damage(pool.storage, pool.keys)] == [11 * SECOND]

    gone = findings(40 * SECOND, [])
    gone.structure = ()
    write_findings(pool.storage, pool.keys, gone, final=True)
    assert read_damage(pool.storage, pool.keys) == ()
    write_findings(pool.storage, pool.keys, first, final=True)
    assert len(read_damage(pool.storage, pool.keys)) == 1
    sound = findings(50 * SECOND, [pack], {pack: 51 * SECOND})
    sound.structure = ()
    write_findings(pool.storage, pool.keys, sound, final=True)
    assert read_damage(pool.storage, pool.keys) == ()


def test_what_was_found_sound_later_counts(pool: Pool) -> None:
    """A slow run does not bring back damage that another one has meanwhile read and found sound."""
    (pack,) = keys(0xAB)
    name = f"packs/ab/{pack.hex()}"
    quick = findings(20 * SECOND, [pack], {pack: 21 * SECOND})
    write_findings(pool.storage, pool.keys, quick, final=True)
    slow = findings(10 * SECOND, [pack])
    slow.hurt[name], slow.read_hurt[pack] = hurt(name, 11 * SECOND), 11 * SECOND
    carried = findings(10 * SECOND, [pack])
    carried.hurt[name] = hurt(name, 5 * SECOND)

    for run in (slow, carried):
        write_findings(pool.storage, pool.keys, run, final=True)

        ledger = read_ledger(pool.storage, pool.keys)
        assert ledger.damage == ()
        assert ledger.times_of(as_pack_ids(pack)).tolist() == [21]


def test_known_damage_is_told_by_source_and_point(pool: Pool) -> None:
    """Every point that damage touches is named with the words that say how."""
    run = findings(10 * SECOND, [])
    run.structure = (
        hurt("packs/x", SECOND, points=((MAIL.id, 1), (MAIL.id, 2))),
        Damage(f"points/{MAIL.id}/00000002", "record", "unreadable", ("mail #2",), ((MAIL.id, 2),)),
        Damage(f"logs/{MAIL.id}/0", "log", "cut off", ("mail after 1:2",)),
    )
    write_findings(pool.storage, pool.keys, run, final=True)

    found = known_damage(pool)[MAIL.id]

    assert found[1] == "packs/x: flipped"
    assert found[2] == f"packs/x: flipped; points/{MAIL.id}/00000002: unreadable"
    assert pool.known_damage(MAIL.id) == KnownDamage(found, {f"logs/{MAIL.id}/0": "cut off"})
    assert not pool.known_damage("0" * 32)


def test_the_oldest_are_read_first() -> None:
    """Damaged and never read objects come first, then by the day on which they were last found sound."""
    a, b, c, d = keys(1, 2, 3, 4)
    ledger = Ledger(as_pack_ids([a, b, c]), np.array([30, 10, 20], dtype=np.uint32), (hurt("A", 1),))
    targets = [Target(name, 1, key) for name, key in zip("ABCD", (a, b, c, d), strict=True)]

    assert [target.name for target in by_age(targets, ledger)] == ["A", "D", "B", "C"]


def test_a_ledger_is_small(pool: Pool) -> None:
    """A hundred thousand packs take some twenty bytes each."""
    sound = {os.urandom(16): time.time_ns() for _ in range(100_000)}
    write_findings(pool.storage, pool.keys, findings(0, list(sound), sound), final=True)

    (listed,) = pool.storage.list("checks")

    assert listed.size < 18 * len(sound)


def test_a_pool_that_cannot_be_written_is_verified_all_the_same(pool: Pool) -> None:
    """Verification of a read-only pool says that it could not note what it found, and finds it."""
    put_image(pool, [b"x" * 5000], Position(1, 1))

    def refuse(call: str, names: tuple[str, ...]) -> None:
        if call in ("stage", "create", "commit"):
            raise StorageReadOnly("the file system is read-only")

    pool.storage = HookedStorage(pool.storage, refuse)

    report = verify_pool(pool, data=True)

    assert report.sound
    assert "read-only" in report.notes[0]


def test_a_taken_number_is_not_the_end(pool: Pool) -> None:
    """However often others are faster, the part of this run is in the end there."""
    (a,) = keys(1)
    rivals = iter(range(3))

    def rival(call: str, names: tuple[str, ...]) -> None:
        if call == "commit" and next(rivals, None) is not None:
            raise ObjectExists("taken")

    write_findings(HookedStorage(pool.storage, rival), pool.keys, findings(0, [a], {a: SECOND}), final=True)

    assert read_ledger(pool.storage, pool.keys).times_of(as_pack_ids(a)).tolist() == [1]
