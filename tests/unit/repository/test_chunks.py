"""Writing chunks in a pool that is cleaned up, and reading them from whatever copy is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from perdure.model.errors import Damaged
from perdure.repository import chunks as chunks_module
from perdure.repository import packs as packs_module
from perdure.repository.chunks import BadCopy, ChunkReader, ChunkWriter
from perdure.repository.index import ChunkIndex
from perdure.repository.keys import KeyRing
from perdure.repository.packs import pack_id, pack_name, read_pack_index
from perdure.storage.contract import Capabilities, StorageFull
from perdure.storage.local import LocalStorage


class Scene:
    """A storage with packs, and a process that reads them."""

    def __init__(self, folder: Path) -> None:
        self.storage = LocalStorage(folder / "pool", create=True)
        self.keys = KeyRing(bytes(32))
        self.index = ChunkIndex(folder / "index")
        self.refreshed = 0
        self.bad: list[BadCopy] = []
        self.reader = self.new_reader()

    def new_reader(self) -> ChunkReader:
        return ChunkReader(self.storage, self.keys, self.index, self.refresh, self.bad.append)

    def refresh(self) -> None:
        self.refreshed += 1
        packs = ((pack_id(listed.name) or b"", listed.size) for listed in self.storage.list("packs"))
        self.index.match(packs, lambda pack, size: read_pack_index(self.storage, self.keys, pack, size))

    def write_elsewhere(self, contents: Iterable[bytes]) -> bytes:
        """Another process writes these into a pack of their own, whatever the pool has; returns the pack's id."""
        before = {listed.name for listed in self.storage.list("packs")}
        writer = ChunkWriter(self.storage, self.keys, ChunkIndex(self.storage.root / "none"))
        for content in contents:
            writer.put(content)
        writer.make_durable()
        (new,) = {listed.name for listed in self.storage.list("packs")} - before
        pack = pack_id(new)
        assert pack is not None
        return pack

    def damage(self, pack: bytes, chunk: bytes) -> None:
        """Flip a bit in the middle of a chunk."""
        (place,) = (place for place in self.index.find_all(chunk) if place.pack == pack)
        path = self.storage.root / pack_name(pack)
        data = bytearray(path.read_bytes())
        data[place.offset + place.stored // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_capture_does_not_rely_on_condemned_packs(scene: Scene) -> None:
    """Content that lies only in a condemned pack is stored again, and once."""
    content = os.urandom(5000)
    condemned = scene.write_elsewhere([content])
    scene.refresh()
    scene.index.avoid([condemned])

    stored = []
    for _ in range(2):
        writer = ChunkWriter(scene.storage, scene.keys, scene.index)
        chunk = writer.put(content)
        writer.make_durable()
        stored.append(writer.stored)

    assert stored[0] > 5000
    assert stored[1] == 0
    assert {condemned} < {place.pack for place in scene.index.find_all(chunk)}


def test_threads_store_equal_content_once(scene: Scene) -> None:
    """Several threads that put the same content at once store one copy of it."""
    content = os.urandom(200_000)
    writer = ChunkWriter(scene.storage, scene.keys, scene.index)

    with ThreadPoolExecutor(4) as threads:
        ids = set(threads.map(writer.put, [content] * 40))
    writer.make_durable()

    assert len(scene.index.find_all(ids.pop())) == 1
    assert not ids


def test_content_that_could_not_be_stored_is_not_taken_as_stored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a put failed, the same content is stored when it is put again."""
    writer = ChunkWriter(scene.storage, scene.keys, scene.index)
    with monkeypatch.context() as failing:
        failing.setattr(packs_module.PackWriter, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.put(b"content")
    chunk = writer.put(b"content")
    writer.make_durable()

    assert scene.reader.read(chunk) == b"content"


def test_a_pack_that_did_not_become_durable_stops_every_commit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an early pack of a capture fails, a caller that goes on regardless fails again when it wants to commit."""
    monkeypatch.setattr(packs_module, "PACK_SIZE", 1000)
    publish = LocalStorage._publish_now
    failures = iter([StorageFull("no room")])

    def failing(*arguments: Any) -> Path:
        for failure in failures:
            raise failure
        return publish(*arguments)

    monkeypatch.setattr(LocalStorage, "_publish_now", failing)
    writer = ChunkWriter(scene.storage, scene.keys, scene.index)
    failed = 0
    for _ in range(2 * chunks_module._SETTLE_AT):
        try:
            writer.put(os.urandom(2000))
        except StorageFull:
            failed += 1
    assert failed

    with pytest.raises(StorageFull):
        writer.make_durable()


def test_a_long_capture_remembers_only_its_latest_packs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs become durable and indexed while a capture goes on, and nothing is stored twice for that."""
    monkeypatch.setattr(packs_module, "PACK_SIZE", 10_000)
    writer = ChunkWriter(scene.storage, scene.keys, scene.index)
    contents = [os.urandom(3000) for _ in range(400)]
    for content in contents:
        writer.put(content)
        assert len(writer._finished) < chunks_module._SETTLE_AT
        assert len(writer._fresh) <= 4 * (chunks_module._SETTLE_AT + 1)

    stored = writer.stored
    ids = [writer.put(content) for content in contents]
    writer.make_durable()

    assert writer.stored == stored
    assert contents == [scene.reader.read(chunk) for chunk in ids]
    assert all(len(scene.index.find_all(chunk)) == 1 for chunk in ids)


def test_chunks_that_moved_are_found(scene: Scene) -> None:
    """Chunks that another process repacked are read, singly and in runs, after one look at the pool."""
    contents = [os.urandom(2000) for _ in range(60)]
    old = [scene.write_elsewhere(contents[:30]), scene.write_elsewhere(contents[30:])]
    ids = [scene.keys.content_id(content) for content in contents]
    scene.refresh()
    scene.write_elsewhere(contents)
    scene.storage.delete(*map(pack_name, old))
    scene.refreshed = 0

    assert scene.reader.read(ids[7]) == contents[7]
    assert scene.refreshed == 1
    assert dict(scene.reader.read_many(ids)) == dict(enumerate(contents))
    assert scene.refreshed == 1
    assert not scene.bad


def test_chunks_that_move_while_they_are_read_are_found(scene: Scene) -> None:
    """A long read goes on when its packs are repacked and deleted in the middle."""
    contents = [os.urandom(2000) for _ in range(60)]
    old = [scene.write_elsewhere(contents[:30]), scene.write_elsewhere(contents[30:])]
    ids = [scene.keys.content_id(content) for content in contents]
    scene.refresh()
    scene.refreshed = 0
    found = {}

    for number, content in scene.reader.read_many(ids):
        if not found:
            scene.write_elsewhere(contents)
            scene.storage.delete(*map(pack_name, old))
        found[number] = content

    assert found == dict(enumerate(contents))
    assert scene.refreshed == 1


def test_a_bad_copy_is_replaced_and_reported(scene: Scene) -> None:
    """Of a chunk in several packs any whole copy is read, and every bad one that was met is named."""
    contents = [os.urandom(4000) for _ in range(5)]
    packs = [scene.write_elsewhere(contents) for _ in range(3)]
    ids = [scene.keys.content_id(content) for content in contents]
    scene.refresh()
    chosen = scene.reader.place(ids[2]).pack
    others = [pack for pack in packs if pack != chosen]
    for pack in (chosen, min(others)):
        scene.damage(pack, ids[2])

    assert dict(scene.reader.read_many(ids)) == dict(enumerate(contents))
    assert scene.reader.read(ids[2]) == contents[2]

    assert {(bad.chunk, bad.place.pack) for bad in scene.bad} == {(ids[2], chosen), (ids[2], min(others))}
    assert {bad.error.code for bad in scene.bad} == {"damaged-object"}
    scene.damage(max(others), ids[2])
    with pytest.raises(Damaged) as caught:
        scene.reader.read(ids[2])
    assert caught.value.code == "damaged-object"


@pytest.mark.parametrize("size", [0, 20, 3000])
def test_a_cut_off_pack_hurts_only_what_it_lost(scene: Scene, size: int) -> None:
    """Chunks of a pack that was cut short are read from elsewhere, and those that are lost there too are refused."""
    contents = [os.urandom(1500) for _ in range(6)]
    ids = [scene.keys.content_id(content) for content in contents]
    pack = scene.write_elsewhere(contents)
    scene.write_elsewhere(contents[1:])
    scene.refresh()
    os.truncate(scene.storage.root / pack_name(pack), size)

    kept = [number for number in range(6) if number or size == 3000]
    found = dict(scene.reader.read_many([ids[number] for number in kept]))

    assert [found[at] for at in range(len(kept))] == [contents[number] for number in kept]
    if size < 3000:
        with pytest.raises(Damaged):
            scene.reader.read(ids[0])


def test_what_is_missing_is_said_without_looking_again_and_again(scene: Scene) -> None:
    """Many missing chunks cost one look at the pool, and each is named as missing."""
    scene.write_elsewhere([b"content"])
    scene.refresh()
    scene.refreshed = 0

    for number in range(50):
        with pytest.raises(Damaged) as caught:
            scene.reader.read(bytes([number]) * 32)
        assert caught.value.code == "missing-chunk"

    assert scene.refreshed == 1


def test_what_is_damaged_is_said_without_looking_again_and_again(scene: Scene) -> None:
    """Many damaged chunks without another copy cost one look at the pool, and each is named as damaged."""
    contents = [os.urandom(200) for _ in range(20)]
    pack = scene.write_elsewhere(contents)
    scene.refresh()
    ids = [scene.keys.content_id(content) for content in contents]
    for each in ids:
        scene.damage(pack, each)
    scene.refreshed = 0

    for each in ids:
        with pytest.raises(Damaged) as caught:
            scene.reader.read(each)
        assert caught.value.code == "damaged-object"

    assert scene.refreshed == 1
    assert [bad.chunk for bad in scene.bad] == ids


def test_a_chunk_that_another_process_just_stored_is_found(scene: Scene) -> None:
    """A reader whose index is older than a chunk finds it."""
    scene.refresh()
    scene.write_elsewhere([b"content"])

    assert scene.reader.read(scene.keys.content_id(b"content")) == b"content"


def test_a_lost_pack_is_named(scene: Scene) -> None:
    """When a chunk's only pack is gone the error names the pack."""
    pack = scene.write_elsewhere([b"content"])
    scene.refresh()
    scene.storage.delete(pack_name(pack))

    with pytest.raises(Damaged, match=pack_name(pack)) as caught:
        scene.reader.read(scene.keys.content_id(b"content"))

    assert caught.value.code == "missing-chunk"


def test_what_is_missing_is_said_before_a_long_read_begins(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that is missing at the very end stops a read before its first chunk is delivered."""
    monkeypatch.setattr(chunks_module, "_WINDOW", 4)
    contents = [os.urandom(100) for _ in range(20)]
    scene.write_elsewhere(contents)
    scene.refresh()
    ids = [scene.keys.content_id(content) for content in contents]
    seen: list[int] = []

    with pytest.raises(Damaged):
        scene.reader.for_each([*ids, bytes(32)], lambda number, _: seen.append(number), 2)

    assert not seen
    assert dict(scene.reader.read_many(ids + ids)) == dict(enumerate(contents + contents))


@pytest.mark.parametrize(("local", "requests"), [(True, 4), (False, 1)])
def test_a_far_storage_is_asked_less_often(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, local: bool, requests: int
) -> None:
    """Gaps of some hundred kilobytes are read over where requests are dear, and skipped where they are cheap."""
    contents = [os.urandom(100_000) for _ in range(13)]
    scene.write_elsewhere(contents)
    scene.refresh()
    ids = [scene.keys.content_id(content) for content in contents]
    monkeypatch.setattr(LocalStorage, "capabilities", Capabilities(local=local))
    reader = scene.new_reader()
    reader.read(ids[0])
    asked: list[int] = []
    read_range = LocalStorage.read_range

    def counting(storage: LocalStorage, name: str, offset: int, length: int) -> bytes:
        asked.append(length)
        return read_range(storage, name, offset, length)

    monkeypatch.setattr(LocalStorage, "read_range", counting)

    assert len(dict(reader.read_many(ids[::4]))) == 4
    assert len(asked) == requests
