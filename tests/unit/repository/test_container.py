"""The sealed container."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.model.errors import Damaged
from perdure.repository.container import (
    BlockPlace,
    ContainerReader,
    ContainerWriter,
    Kind,
    create_sealed,
    read_sealed,
)
from perdure.repository.keys import KeyRing, UnknownKeyEpoch
from perdure.storage.local import LocalStorage

KEYS = KeyRing(b"m" * 32, later=lambda epoch: None)


def written(root: Path, blocks: list[bytes], footer: bytes) -> tuple[bytes, list[BlockPlace]]:
    """The bytes of a container and the places of its blocks."""
    storage = LocalStorage(root, create=True)
    staged = storage.stage()
    writer = ContainerWriter(staged, Kind.PACK, KEYS)
    places = [writer.add_block(block, bytes([n % 256]) * 32) for n, block in enumerate(blocks)]
    writer.finish(footer)
    storage.commit(staged, "c")
    data = storage.read("c")
    storage.delete("c")
    return data, places


def reader(data: bytes, kind: Kind = Kind.PACK, keys: KeyRing = KEYS) -> ContainerReader:
    """A reader over bytes in memory."""
    return ContainerReader(lambda offset, length: data[offset : offset + length], len(data), kind, keys, "c")


def read_whole(data: bytes, places: list[BlockPlace]) -> None:
    """Read footer and every block."""
    found = reader(data)
    found.footer()
    for number, place in enumerate(places):
        found.block(place, bytes([number]) * 32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(blocks=st.lists(st.binary(max_size=3000), max_size=5), footer=st.binary(max_size=300))
def test_what_was_written_is_read(tmp_path: Path, blocks: list[bytes], footer: bytes) -> None:
    """Blocks and footer come back, by the footer's places and by scanning."""
    data, places = written(tmp_path, blocks, footer)

    assert (footer, len(blocks)) == reader(data).footer()
    assert blocks == [reader(data).block(place, bytes([n]) * 32) for n, place in enumerate(places)]
    assert places == [place for _, place in reader(data).scan()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(tmp_path: Path, at: int, bit: int) -> None:
    """No single flipped bit anywhere in a container reads as sound."""
    blocks = [b"a" * 500, bytes(range(256)) * 2]
    data, places = written(tmp_path, blocks, b"footer")
    broken = bytearray(data)
    broken[at % len(data)] ^= 1 << bit

    with pytest.raises(Damaged):
        read_whole(bytes(broken), places)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=400))
def test_garbage_is_damage_and_nothing_worse(data: bytes) -> None:
    """Any bytes at all give a typed error."""
    with pytest.raises(Damaged):
        reader(data).footer()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(keep=st.integers(0, 2000))
def test_a_cut_off_container_is_damaged(tmp_path: Path, keep: int) -> None:
    """A container that lost its end has no valid trailer."""
    data, _ = written(tmp_path, [b"x" * 700], b"footer")

    with pytest.raises(Damaged):
        reader(data[: keep % len(data)]).footer()


def test_one_kind_cannot_be_passed_off_as_another(tmp_path: Path) -> None:
    """A record copied over a source is refused."""
    storage = LocalStorage(tmp_path, create=True)
    create_sealed(storage, "x", Kind.POINT, KEYS, b"data")

    with pytest.raises(Damaged):
        read_sealed(storage, "x", Kind.SOURCE, KEYS)
    assert read_sealed(storage, "x", Kind.POINT, KEYS) == b"data"


def test_blocks_cannot_change_places(tmp_path: Path) -> None:
    """A block does not open under another block's label."""
    data, places = written(tmp_path, [b"one" * 100, b"two" * 100], b"")

    with pytest.raises(Damaged):
        reader(data).block(places[0], b"\1" * 32)


def test_another_pool_key_opens_nothing(tmp_path: Path) -> None:
    """Without the master key neither footer nor blocks open."""
    data, places = written(tmp_path, [b"secret" * 50], b"footer")
    stranger = reader(data, keys=KeyRing(b"n" * 32))

    with pytest.raises(Damaged):
        stranger.footer()
    with pytest.raises(Damaged):
        stranger.block(places[0])
    assert b"secret" not in data


def test_each_container_opens_with_the_key_of_its_epoch(tmp_path: Path) -> None:
    """Old and new objects are read by a ring that has both keys; new ones are written under the newest."""
    storage = LocalStorage(tmp_path, create=True)
    both = KeyRing(b"m" * 32, b"n" * 32)
    create_sealed(storage, "old", Kind.POINT, KEYS, b"before")
    create_sealed(storage, "new", Kind.POINT, both, b"after")

    assert storage.read("old")[11:16] == bytes(5)
    assert storage.read("new")[11:16] == b"\1\0\0\0\0"
    assert read_sealed(storage, "old", Kind.POINT, both) == b"before"
    assert read_sealed(storage, "new", Kind.POINT, both) == b"after"


def test_a_later_key_epoch_is_not_taken_for_damage(tmp_path: Path) -> None:
    """Keys that were read before a rotation give a typed error that says so."""
    storage = LocalStorage(tmp_path, create=True)
    create_sealed(storage, "new", Kind.POINT, KeyRing(b"m" * 32, b"n" * 32), b"after")

    with pytest.raises(UnknownKeyEpoch) as caught:
        read_sealed(storage, "new", Kind.POINT, KeyRing(b"m" * 32))
    assert caught.value.code == "unknown-key-epoch"
    assert "again" in caught.value.hint


def test_a_key_epoch_that_the_pool_never_had_is_damage(tmp_path: Path) -> None:
    """A flipped bit in the epoch of one object is damage of that object."""
    storage = LocalStorage(tmp_path, create=True)
    create_sealed(storage, "new", Kind.POINT, KeyRing(b"m" * 32, b"n" * 32), b"after")

    with pytest.raises(Damaged, match="key epoch 1"):
        read_sealed(storage, "new", Kind.POINT, KEYS)


def test_chunk_ids_survive_a_rotation() -> None:
    """The id of a content comes from the first master key, so that what is stored already is found again."""
    assert KeyRing(b"m" * 32, b"n" * 32).content_id(b"x") == KEYS.content_id(b"x")
