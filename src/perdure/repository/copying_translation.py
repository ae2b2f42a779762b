"""Which chunk of one pool is which of another: chunk ids are keyed, so the same content has another id in every pool.

The table is columns of numpy, in a few sorted runs of which smaller ones are merged: some 64 bytes for a chunk,
64 MB for a terabyte of protected data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.extents import ID_SIZE
from perdure.model.points import StreamRef
from perdure.repository.reach import Ids

__all__ = ["IdTable", "Translation", "no_ids", "unique_ids"]

_RATIO = 4
"""A run is merged into the next when it has more than a quarter of its rows."""
_SINGLE = 4096
"""Ids that were added one at a time wait in a dictionary up to so many."""


def no_ids() -> Ids:
    """An empty array of chunk ids."""
    return np.empty((0, ID_SIZE), dtype=np.uint8)


def unique_ids(ids: Ids) -> Ids:
    """The chunk ids without repetitions, in the order of first appearance."""
    return ids[_first(ids)]


def _first(ids: Ids) -> NDArray[np.intp]:
    """The rows where each id appears first, ascending.

    An id that shares its first 8 bytes with another may appear twice, which costs a look-up and harms nothing.
    """
    order = np.argsort(_prefixes(ids), kind="stable")
    ordered = ids[order]
    again = np.zeros(len(ids), dtype=np.bool_)
    again[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return np.sort(order[~again])


def _prefixes(ids: Ids) -> NDArray[np.uint64]:
    return np.ascontiguousarray(ids[:, :8]).view("<u8").reshape(-1)


@dataclass(frozen=True, eq=False)
class _Run:
    """Rows in ascending order of the first 8 bytes of their keys."""

    prefixes: NDArray[np.uint64]
    keys: Ids
    values: Ids

    def __len__(self) -> int:
        return len(self.keys)


def _sorted(keys: Ids, values: Ids) -> _Run:
    prefixes = _prefixes(keys)
    order = np.argsort(prefixes, kind="stable")
    return _Run(prefixes[order], keys[order], values[order])


class IdTable:
    """Chunk ids of one pool with those of another. Not for several threads at once."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._single: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return sum(map(len, self._runs)) + len(self._single)

    def get(self, key: bytes) -> bytes | None:
        """What one id is, or ``None`` if that is not known."""
        if key in self._single:
            return self._single[key]
        values, known = self._find(np.frombuffer(key, dtype=np.uint8).reshape(1, ID_SIZE))
        return values[0].tobytes() if known[0] else None

    def put(self, key: bytes, value: bytes) -> None:
        """Note one id."""
        self._single[key] = value
        if len(self._single) >= _SINGLE:
            self._settle()

    def find(self, keys: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """What ids are.

        Args:
            keys: Shape ``(n, 32)``.

        Returns:
            Ids of the other pool, shape ``(n, 32)``, zeros where that is not known; and whether it is, shape ``(n,)``.
        """
        self._settle()
        return self._find(keys)

    def add(self, keys: Ids, values: Ids) -> Ids:
        """Note many ids at once; what is known already stays as it is. Returns the keys that were not known."""
        _, known = self.find(keys)
        keys, values = keys[~known], values[~known]
        first = _first(keys)
        if len(first):
            self._append(_sorted(keys[first], values[first]))
        return keys[first]

    def take(self, other: IdTable) -> None:
        """Note everything that another table knows."""
        other._settle()
        for run in other._runs:
            self.add(run.keys, run.values)

    def _find(self, keys: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        values = np.zeros((len(keys), ID_SIZE), dtype=np.uint8)
        known = np.zeros(len(keys), dtype=np.bool_)
        prefixes = _prefixes(keys)
        for run in self._runs:
            asked = np.flatnonzero(~known)
            at = run.prefixes.searchsorted(prefixes[asked])
            # Usually one round: another for each key that shares its first bytes with the one before.
            while len(asked):
                inside = at < len(run)
                asked, at = asked[inside], at[inside]
                near = run.prefixes[at] == prefixes[asked]
                asked, at = asked[near], at[near]
                same = (run.keys[at] == keys[asked]).all(axis=1)
                values[asked[same]] = run.values[at[same]]
                known[asked[same]] = True
                asked, at = asked[~same], at[~same] + 1
        return values, known

    def _settle(self) -> None:
        """Make a run of what was added one at a time."""
        if self._single:
            single, self._single = self._single, {}
            keys = np.frombuffer(b"".join(single), dtype=np.uint8).reshape(-1, ID_SIZE)
            values = np.frombuffer(b"".join(single.values()), dtype=np.uint8).reshape(-1, ID_SIZE)
            self._append(_sorted(keys, values))

    def _append(self, run: _Run) -> None:
        while self._runs and len(self._runs[-1]) < _RATIO * len(run):
            smaller = self._runs.pop()
            run = _sorted(np.concatenate([smaller.keys, run.keys]), np.concatenate([smaller.values, run.values]))
        self._runs.append(run)


@dataclass
class Translation:
    """What is known of one source in two pools: data chunks, and streams (maps, listings, long piece lists).

    A stream is known only when everything that it names, at any depth, is in the other pool too. It is known as a
    whole: a chunk id may lie across the border of two of its chunks, so a chunk of a stream means nothing by itself.

    Args:
        data: Chunks of content.
    """

    data: IdTable = field(default_factory=IdTable)
    _short: IdTable = field(default_factory=IdTable)
    _long: dict[bytes, StreamRef] = field(default_factory=dict)

    def stream(self, ref: StreamRef) -> StreamRef | None:
        """What a stream is in the other pool, or ``None`` if that is not known."""
        if len(ref.chunks) == 1:
            chunk = self._short.get(ref.chunks[0])
            return None if chunk is None else StreamRef((chunk,), ref.size)
        return self._long.get(_name(ref))

    def note_stream(self, ref: StreamRef, other: StreamRef) -> None:
        """Note what a stream is in the other pool."""
        if len(ref.chunks) == 1:
            self._short.put(ref.chunks[0], other.chunks[0])
        else:
            self._long[_name(ref)] = other

    def take_streams(self, found: Translation) -> None:
        """Note all streams that another translation knows."""
        self._short.take(found._short)
        self._long.update(found._long)


def _name(ref: StreamRef) -> bytes:
    """Few streams are longer than a chunk; half a hash of their ids is enough to tell them apart."""
    return blake3(b"".join(ref.chunks)).digest(16)
