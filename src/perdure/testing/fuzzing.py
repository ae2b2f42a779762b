"""Fuzz targets: every parser of bytes that come from a pool, fed with anything at all.

A target takes bytes, puts them where a parser finds them (inside the encryption, with right checksums, where there
are any), and parses. It may raise :class:`PerdureError` or return; whatever else happens is a bug: another exception, a
hang, or more memory than :data:`MEMORY`. ``tools/fuzz`` runs them under a coverage-guided fuzzer, the tests under
hypothesis.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zstandard
from blake3 import blake3

from perdure.model.drills import Drill
from perdure.model.entries import Entry, EntryKind
from perdure.model.errors import PerdureError
from perdure.model.extents import HOLE, overlay
from perdure.model.listings import content_pieces, load_root, read_listing
from perdure.model.logs import LogSpan
from perdure.model.points import DataSource, Hold, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository import logs, maps
from perdure.repository.condemned import read_condemned
from perdure.repository.container import ContainerReader, ContainerWriter, Kind, create_sealed, open_block
from perdure.repository.descriptor import check_descriptor
from perdure.repository.documents import read_document
from perdure.repository.index import ChunkIndex
from perdure.repository.key_sets import KeySet
from perdure.repository.keys import KeyRing, Passphrase, RecoveryKey
from perdure.repository.packs import FOOTER_ROW, pack_name, read_pack_index, salvage_pack_index
from perdure.repository.slots import KeySlot, open_slot
from perdure.testing.fuzz_corpus import Corpus, corpus
from perdure.testing.memory_storage import MemoryStorage

__all__ = ["MEMORY", "TARGETS", "Target", "examine"]

MEMORY = 768 << 20
"""Bytes that parsing may take at most, beyond what the process has before."""

_KEYS = KeyRing(b"m" * 32)
_PAYLOAD = random.Random(1).randbytes(64 << 10)  # noqa: S311 - repeatable, not secret
_SECRETS = (Passphrase(b"correct horse"), RecoveryKey(b"r" * 32))


@dataclass(frozen=True)
class Target:
    """A parser to be fuzzed.

    Args:
        name: What it parses.
        seeds: Real bytes to begin with.
        parse: Parses.
    """

    name: str
    seeds: Callable[[Corpus], Iterable[bytes]]
    parse: Callable[[bytes], object]

    def examples(self) -> list[bytes]:
        """Real bytes, as a pool has them."""
        return list(dict.fromkeys(self.seeds(corpus())))


def examine(target: Target, data: bytes) -> None:
    """Parse, in bounded memory.

    Raises:
        Exception: Whatever is neither a value nor a ``PerdureError``.
    """
    with _bounded(), contextlib.suppress(PerdureError):
        target.parse(data)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Fail allocations beyond :data:`MEMORY`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# --- containers --------------------------------------------------------------------------------------


def _container(data: bytes) -> None:
    for kind in (Kind.PACK, Kind.LOG):
        with contextlib.suppress(PerdureError):
            reader = ContainerReader(lambda offset, length: data[offset:][:length], len(data), kind, _KEYS, "x")
            for label, place in reader.scan():
                with contextlib.suppress(PerdureError):
                    reader.block(place, label)
            reader.footer()


def _block(data: bytes) -> None:
    """Four bytes that say how long the content is, one for the codec, then the body, all sealed properly."""
    if len(data) < 5:
        return
    header = struct.pack("<8sHBB4x16s", b"PERDURE\0", 1, Kind.PACK, 0, bytes(16))
    body = data[5:]
    raw = int.from_bytes(data[:4], "little")
    head = struct.pack("<4sIIIB7x32s", b"BLK1", len(body) + 16, raw, 0, data[4], bytes(32))
    sealed = _KEYS.object_cipher(header, 0).encrypt(bytes(12), body, header + head)
    open_block(_KEYS, header, head + sealed, "x")


def _pack_footer(data: bytes) -> None:
    storage = MemoryStorage()
    staged = storage.stage()
    writer = ContainerWriter(staged, Kind.PACK, _KEYS)
    # As many blocks as the footer says that there are, so that it is believed.
    for number in range(min(int.from_bytes(data[:4], "little"), 8)):
        writer.add_block(bytes([number]) * 100, bytes(32))
    writer.finish(data)
    name = pack_name(writer.object_id)
    storage.commit(staged, name)
    size = storage.size(name)
    salvage_pack_index(storage, _KEYS, writer.object_id, size)
    rows = read_pack_index(storage, _KEYS, writer.object_id, size)
    with tempfile.TemporaryDirectory() as directory:
        index = ChunkIndex(Path(directory))
        index.match([(writer.object_id, size)], lambda _pack, _size: rows)
        header = storage.read_range(name, 0, 32)
        for chunk in rows["id"].tolist()[:16]:
            place = index.find(chunk)
            assert place is not None, "a chunk that the footer lists is found"
            with contextlib.suppress(PerdureError):
                open_block(_KEYS, header, storage.read_range(name, place.offset, 56 + place.stored), name, chunk)
        index.save()


# --- what lies in containers -------------------------------------------------------------------------


def _document(kind: Kind, of: type[object]) -> Callable[[bytes], None]:
    def parse(data: bytes) -> None:
        storage = MemoryStorage()
        create_sealed(storage, "x", kind, _KEYS, data)
        msgspec.msgpack.encode(read_document(storage, _KEYS, "x", kind, of))

    return parse


def _condemned(data: bytes) -> None:
    storage = MemoryStorage()
    create_sealed(storage, "gc/00000001", Kind.CONDEMNED, _KEYS, data)
    read_condemned(storage, _KEYS, 1)


def _log_footer(data: bytes) -> None:
    name = f"logs/x/{0:08x}-{0:016x}-{0:016x}"
    # Anything: what does not decode is what the target is about.
    with contextlib.suppress(Exception):
        claimed = msgspec.msgpack.decode(data)
        name = logs.log_name(claimed["source"], Position(*claimed["after"]), Position(*claimed["last"]))
    storage = MemoryStorage()
    staged = storage.stage()
    writer = ContainerWriter(staged, Kind.LOG, _KEYS)
    writer.add_block(_PAYLOAD, _KEYS.content_id(_PAYLOAD))
    writer.finish(data)
    try:
        storage.commit(staged, name)
    except ValueError:
        return
    span = LogSpan(0, 0, 0, storage.size(name), name)
    logs.read_segment(storage, _KEYS, span)
    with contextlib.suppress(PerdureError):
        for _ in logs.read_blocks(storage, _KEYS, span):
            pass


def _log_columns(data: bytes) -> None:
    """The same bytes as compressed marks and as compressed index."""
    footer = {"source": "x", "after": (0, 0), "last": (0, 1), "chain": b"", "blocks": [], "written_ns": 0}
    _log_footer(msgspec.msgpack.encode({**footer, "marks": data, "index": data}))


def _log_marks(data: bytes) -> None:
    """Marks before they are compressed."""
    _log_columns(zstandard.compress(data))


# --- what lies in chunks -----------------------------------------------------------------------------


def _map(data: bytes) -> None:
    found = maps.decode_map(data)
    for extents in (found, overlay(found, found, found.slice(found.size // 3, found.size // 2))):
        rows = extents.extents
        ends = rows["offset"] + rows["length"]
        assert not len(rows) or int(ends.max()) <= extents.size, "extents lie in the file"
        assert (ends[:-1] <= rows["offset"][1:]).all(), "extents do not overlap"
        assert all(chunk == HOLE or chunk < len(extents.chunks) for chunk in rows["chunk"].tolist())
    maps.encode_map(found)


class _Streams:
    """Gives the same bytes for every stream, a bounded number of times."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = 50

    def read_stream(self, _ref: StreamRef) -> bytes:
        self._left -= 1
        return self._data if self._left >= 0 else b"\x90"


def _listing(data: bytes) -> None:
    streams = _Streams(data)
    ref = StreamRef((), len(data))
    with contextlib.suppress(PerdureError):
        load_root(ref, streams)
    before = b""
    for entry in read_listing(Entry(b"", EntryKind.DIRECTORY, listing=ref), streams):
        assert before < entry.name, "names ascend"
        assert b"/" not in entry.name, "a name is one component"
        before = entry.name
        with contextlib.suppress(PerdureError):
            content_pieces(entry, streams)


def _pieces(data: bytes) -> None:
    for size in (0, len(data), 1000):
        entry = Entry(b"x", EntryKind.FILE, size=size, content_map=StreamRef((), len(data)))
        with contextlib.suppress(PerdureError):
            assert sum(piece.length for piece in content_pieces(entry, _Streams(data))) == size


# --- plain objects and files -------------------------------------------------------------------------


def _slot(data: bytes) -> None:
    slot = KeySlot.decode(data, "x")
    for secret in _SECRETS:
        open_slot(slot, secret, bytes(16))


def _key_set(data: bytes) -> None:
    KeySet.decode(data, "keys/set-00000001")


def _with_right_check(data: bytes, order: Sequence[str]) -> bytes:
    """The same map, if it is one, with the checksum that it should have."""
    try:
        values = msgspec.msgpack.decode(data)
        check = blake3(msgspec.msgpack.encode([values[key] for key in order])).digest(8)
        return msgspec.msgpack.encode({**values, "check": check})
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError):
        return data


def _checked_slot(data: bytes) -> None:
    _slot(_with_right_check(data, ("kind", "salt", "cost", "sealed")))


def _checked_key_set(data: bytes) -> None:
    _key_set(_with_right_check(data, ("number", "epochs", "slots", "made_ns")))


def _descriptor(data: bytes) -> None:
    found = check_descriptor(data, "pool")
    assert len(bytes.fromhex(found.id)) == 16, "the id is what other parsers rely on"


def _checked_descriptor(data: bytes) -> None:
    try:
        values: Any = json.loads(data)
        values.pop("check", None)
        line = json.dumps(values, sort_keys=True).encode()
        whole = {**values, "check": blake3(line).hexdigest()}
        data = json.dumps(whole, sort_keys=True).encode() + b"\n"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return
    _descriptor(data)


def _index(files: dict[str, bytes]) -> None:
    """Open a cache, look something up, learn a new pack and save."""
    rows = np.zeros(1, dtype=FOOTER_ROW)
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        index = ChunkIndex(Path(directory))
        index.match([(bytes(16), 100), *_packs_in(files)], lambda _pack, _size: rows)
        index.find(bytes(32))
        index.has(b"x" * 32)
        len(index)
        index.save()


def _packs_in(files: dict[str, bytes]) -> list[tuple[bytes, int]]:
    """The packs that a segment claims to index, so that it is not thrown away for being about others."""
    for content in files.values():
        if content[:8] == b"PRDINDEX" and len(content) >= 32:
            count = min(int.from_bytes(content[8:16], "little"), len(content) // 24)
            sizes = content[32 + 16 * count :]
            return [
                (content[32 + 16 * n :][:16], int.from_bytes(sizes[8 * n :][:8], "little"))
                for n in range(count)
                if len(content[32 + 16 * n :][:16]) == 16
            ]
    return []


def _index_manifest(data: bytes) -> None:
    _index({"manifest": data})


def _index_segment(data: bytes) -> None:
    """A segment under the digest of a real one: the manifest is trusted, it lies in the user's own directory."""
    real = corpus().index_segments
    named = {"file": "a.idx", "digest": blake3(data if data in real else real[0]).digest()}
    _index({"a.idx": data, "manifest": msgspec.msgpack.encode({"version": 2, "segments": [named]})})


def _all(*parts: str) -> Callable[[Corpus], Iterable[bytes]]:
    return lambda found: [text for part in parts for text in getattr(found, part)]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("container", _all("containers"), _container),
        Target("block", _all("blocks"), _block),
        Target("pack-footer", _all("pack_footers"), _pack_footer),
        Target("record", _all("records"), _document(Kind.POINT, RecoveryPoint)),
        Target("source", _all("sources"), _document(Kind.SOURCE, DataSource)),
        Target("hold", _all("holds"), _document(Kind.HOLD, Hold)),
        Target("drill", _all("drills"), _document(Kind.DRILL, Drill)),
        Target("policy", _all("policies"), _document(Kind.POLICY, RetentionPolicy)),
        Target("condemned", _all("condemned"), _condemned),
        Target("log-footer", _all("log_footers"), _log_footer),
        Target("log-columns", _all("log_columns"), _log_columns),
        Target("log-marks", _all("log_marks"), _log_marks),
        Target("map", _all("maps"), _map),
        Target("listing", _all("listings"), _listing),
        Target("pieces", _all("pieces"), _pieces),
        Target("key-slot", _all("slots"), _slot),
        Target("key-slot-checked", _all("slots"), _checked_slot),
        Target("key-set", _all("key_sets"), _key_set),
        Target("key-set-checked", _all("key_sets"), _checked_key_set),
        Target("descriptor", _all("descriptors"), _descriptor),
        Target("descriptor-checked", _all("descriptors"), _checked_descriptor),
        Target("index-manifest", _all("index_manifests"), _index_manifest),
        Target("index-segment", _all("index_segments"), _index_segment),
    )
}
"""All targets by name."""
