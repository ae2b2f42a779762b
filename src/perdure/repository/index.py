"""The chunk index: where each chunk lies. A cache; packs are the truth.

The index is a few immutable sorted segments, memory-mapped from the cache directory, and a dictionary for
the packs of this process. Opening lists the pool's packs and mends the cache to match: packs it does not
know are read from their footers, entries of packs that are gone are dropped. A segment that fails its
checksum is thrown away and read again from the packs, so a damaged cache can cost time but not data.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.extents import ID_SIZE

__all__ = ["ChunkIndex", "ChunkPlace"]

_ROW = np.dtype(
    [("prefix", "<u8"), ("rest", "V24"), ("pack", "<u4"), ("offset", "<u4"), ("stored", "<u4"), ("raw", "<u4")]
)
_MERGE_AT = 8
"""Segments are merged when there are more; a look-up asks each of them."""


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk lies: pack id (16 bytes), offset of its block header, bytes stored, bytes of content."""

    pack: bytes
    offset: int
    stored: int
    raw: int


class _Segment(msgspec.Struct, frozen=True):
    file: str
    digest: bytes
    packs: list[tuple[bytes, int]]


class _Manifest(msgspec.Struct):
    version: int
    segments: list[_Segment]


@dataclass(frozen=True)
class _Loaded:
    meta: _Segment | None
    rows: NDArray[np.void]
    prefixes: NDArray[np.uint64]
    packs: list[tuple[bytes, int]]
    gone: frozenset[int]


class ChunkIndex:
    """Look-up by chunk id. All methods may be called from several threads."""

    def __init__(self, directory: Path) -> None:
        """Use ``directory`` for the cache; it is made when needed."""
        self._directory = directory
        self._segments: list[_Loaded] = []
        self._recent: dict[bytes, ChunkPlace] = {}
        self._recent_packs: dict[bytes, tuple[int, NDArray[np.void]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(len(segment.rows) for segment in self._segments) + len(self._recent)

    @property
    def pack_count(self) -> int:
        return sum(len(s.packs) - len(s.gone) for s in self._segments) + len(self._recent_packs)

    def find(self, chunk: bytes) -> ChunkPlace | None:
        """Where a chunk lies, or ``None``."""
        place = self._recent.get(chunk)
        if place is not None:
            return place
        prefix = np.uint64(int.from_bytes(chunk[:8], "little"))
        for segment in self._segments:
            row = int(np.searchsorted(segment.prefixes, prefix))
            while row < len(segment.rows) and segment.prefixes[row] == prefix:
                found = segment.rows[row]
                if found["rest"].tobytes() == chunk[8:] and int(found["pack"]) not in segment.gone:
                    pack = segment.packs[int(found["pack"])][0]
                    return ChunkPlace(pack, int(found["offset"]), int(found["stored"]), int(found["raw"]))
                row += 1
        return None

    def add_pack(self, pack: bytes, size: int, rows: NDArray[np.void]) -> None:
        """Take in the index rows of a pack."""
        with self._lock:
            self._recent_packs[pack] = (size, rows)
            for row in rows:
                self._recent[row["id"].tobytes()] = ChunkPlace(
                    pack, int(row["offset"]), int(row["stored"]), int(row["raw"])
                )

    # --- the cache ---

    def match(self, packs: Iterable[tuple[bytes, int]], read_index: Callable[[bytes, int], NDArray[np.void]]) -> None:
        """Make the index agree with the pool.

        Args:
            packs: Id and size of every pack that the pool lists.
            read_index: Reads the index rows of a pack that the cache does not know.
        """
        listed = dict(packs)
        known: set[bytes] = set(self._recent_packs)
        loaded = []
        for meta in self._read_manifest().segments:
            rows = self._load(meta)
            if rows is None:
                continue
            gone = frozenset(n for n, (pack, size) in enumerate(meta.packs) if listed.get(pack) != size)
            known.update(pack for n, (pack, _) in enumerate(meta.packs) if n not in gone)
            loaded.append(_Loaded(meta, rows, rows["prefix"].astype(np.uint64), list(meta.packs), gone))
        self._segments = loaded
        for pack, size in listed.items():
            if pack not in known:
                self.add_pack(pack, size, read_index(pack, size))

    def save(self) -> None:
        """Write what is new to the cache. A cache that cannot be written is left as it is."""
        with self._lock, contextlib.suppress(OSError):
            stale = any(segment.gone for segment in self._segments)
            if not self._recent_packs and not stale:
                return
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = self._recent_segment()
            merge = [*self._segments, fresh] if len(self._segments) >= _MERGE_AT or stale else [fresh]
            keep = [] if len(merge) > 1 else list(self._segments)
            joined = self._joined(merge)
            if len(joined.rows):
                keep.append(self._written(joined))
            self._write_manifest([s.meta for s in keep if s.meta is not None])
            self._segments = keep
            self._recent, self._recent_packs = {}, {}
            self._remove_unused({s.meta.file for s in keep if s.meta is not None})

    def _recent_segment(self) -> _Loaded:
        packs = [(pack, size) for pack, (size, _) in self._recent_packs.items()]
        parts = []
        for number, (_, rows) in enumerate(self._recent_packs.values()):
            raw = np.frombuffer(rows["id"].tobytes(), dtype=np.dtype([("prefix", "<u8"), ("rest", "V24")]))
            part = np.empty(len(rows), dtype=_ROW)
            part["prefix"], part["rest"], part["pack"] = raw["prefix"], raw["rest"], number
            part["offset"], part["stored"], part["raw"] = rows["offset"], rows["stored"], rows["raw"]
            parts.append(part)
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=_ROW)
        return _Loaded(None, rows, rows["prefix"].astype(np.uint64), packs, frozenset())

    @staticmethod
    def _joined(segments: Sequence[_Loaded]) -> _Loaded:
        packs: list[tuple[bytes, int]] = []
        parts = []
        for segment in segments:
            live = [n for n in range(len(segment.packs)) if n not in segment.gone]
            renumber = np.zeros(max(len(segment.packs), 1), dtype=np.uint32)
            renumber[live] = np.arange(len(packs), len(packs) + len(live), dtype=np.uint32)
            keep = np.isin(segment.rows["pack"], np.array(live, dtype=np.uint32))
            part = segment.rows[keep].copy()
            part["pack"] = renumber[part["pack"]]
            parts.append(part)
            packs.extend(segment.packs[n] for n in live)
        rows = np.concatenate(parts)
        rows = rows[np.argsort(rows["prefix"].astype(np.uint64), kind="stable")]
        return _Loaded(None, rows, rows["prefix"].astype(np.uint64), packs, frozenset())

    def _written(self, segment: _Loaded) -> _Loaded:
        data = segment.rows.tobytes()
        digest = blake3(data).digest()
        name = f"{digest[:12].hex()}.idx"
        _replace_file(self._directory / name, data)
        meta = _Segment(name, digest, segment.packs)
        return _Loaded(meta, segment.rows, segment.prefixes, segment.packs, frozenset())

    def _load(self, meta: _Segment) -> NDArray[np.void] | None:
        path = self._directory / meta.file
        try:
            if path.stat().st_size == 0:
                return None
            data = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError):
            return None
        if blake3(data.data).digest() != meta.digest or len(data) % _ROW.itemsize:
            return None
        return data.view(_ROW)

    def _read_manifest(self) -> _Manifest:
        try:
            manifest = msgspec.msgpack.decode((self._directory / "manifest").read_bytes(), type=_Manifest)
        except (OSError, msgspec.MsgspecError):
            return _Manifest(1, [])
        return manifest if manifest.version == 1 else _Manifest(1, [])

    def _write_manifest(self, segments: list[_Segment]) -> None:
        _replace_file(self._directory / "manifest", msgspec.msgpack.encode(_Manifest(1, segments)))

    def _remove_unused(self, used: set[str]) -> None:
        for path in self._directory.glob("*.idx"):
            if path.name not in used:
                path.unlink(missing_ok=True)


def _replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    with temporary.open("wb") as file:
        _write(file, data)
    temporary.replace(path)


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


assert ID_SIZE == 32
