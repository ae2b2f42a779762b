"""The chunk index kept in step with a pool that other processes clean up.

Three things can go stale in a process that runs for weeks: packs that it knows may be condemned, may be gone, and
new ones may have come. It looks at the condemned lists (a short listing) before every capture; only when the numbers
show that lists were carried out since the last look are the packs listed again.

Packs that the verification ledger names as damaged are avoided like condemned ones: captures store their content again,
readers prefer other copies, and garbage collection never takes a good copy for needless because of a damaged one.

A condemned list that cannot be read stops captures, since it is not known what may be relied on; reading goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.repository.condemned import CondemnedList, condemned_numbers, read_condemned
from perdure.repository.index import ChunkIndex
from perdure.repository.keys import KeyRing
from perdure.repository.known_damage import damaged_packs
from perdure.repository.ledger import ledger_numbers, read_damage
from perdure.repository.packs import FOOTER_ROW, pack_id, read_pack_index, salvage_pack_index
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["MatchedIndex"]


class MatchedIndex:
    """An index and what is known of the pool's condemned lists. All methods may be called from several threads.

    Args:
        storage: The pool's storage.
        keys: Its keys.
        index: The index, not yet matched.
        on_damage: Told of packs whose footer is damaged.
    """

    def __init__(
        self, storage: Storage, keys: KeyRing, index: ChunkIndex, on_damage: Callable[[Damaged], None]
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._on_damage = on_damage
        self._lock = threading.RLock()
        self._matched = False
        self._lists: dict[int, CondemnedList] = {}
        self._unreadable: dict[int, Damaged] = {}
        self._hurt: frozenset[bytes] = frozenset()
        self._ledgers: list[int] = []
        self._seen = 0

    @property
    def index(self) -> ChunkIndex:
        """The index, matched with the pool's packs at first use."""
        with self._lock:
            if not self._matched:
                self._match()
        return self._index

    def refresh(self) -> None:
        """Match the index with the pool's packs again."""
        with self._lock:
            self._match()

    def heed_condemned(self) -> dict[int, CondemnedList]:
        """Learn what is condemned, so that nothing new relies on it; returns all lists by number.

        Raises:
            Damaged: A list cannot be read, so that it is not known what may be relied on.
        """
        with self._lock:
            if self._matched:
                present = condemned_numbers(self._storage)
                missed = set(range(self._seen + 1, max(present, default=0) + 1)) - present.keys()
                if missed or self._known() - present.keys() or not self._read_lists(present):
                    self._match()
            else:
                self._match()
            for error in self._unreadable.values():
                raise error
            return dict(self._lists)

    def condemned(self) -> frozenset[bytes]:
        """The packs of every list that can be read, as far as known now."""
        with self._lock:
            return frozenset[bytes]().union(*(each.packs for each in self._lists.values()))

    def avoided(self) -> frozenset[bytes]:
        """The packs that nothing new relies on, as far as known now: condemned or known to be damaged."""
        with self._lock:
            return self.condemned() | self._hurt

    def _known(self) -> set[int]:
        return self._lists.keys() | self._unreadable.keys()

    def _match(self) -> None:
        # The lists come first: one that is published and carried out during the match shows when they are read.
        complete = False
        while not complete:
            present = condemned_numbers(self._storage)
            packs = ((pack_id(listed.name), listed.size) for listed in self._storage.list("packs"))
            # Not a list: what the index learns while it is made must count for more than it.
            known = ((pack, size) for pack, size in packs if pack is not None)
            self._index.match(known, self._pack_index, threads=4 if self._storage.capabilities.local else 16)
            complete = self._read_lists(present)
        self._matched = True

    def _read_lists(self, present: Mapping[int, int]) -> bool:
        """Read the lists that are not known yet; false if one was carried out and removed meanwhile."""
        unreadable: dict[int, Damaged] = {}
        lists = {number: known for number, known in self._lists.items() if number in present}
        for number, published_ns in present.items():
            if number not in lists:
                try:
                    lists[number] = read_condemned(self._storage, self._keys, number, published_ns)
                except ObjectMissing:
                    return False
                except Damaged as error:
                    unreadable[number] = error
        self._lists, self._unreadable = lists, unreadable
        self._seen = max(self._seen, max(present, default=0))
        self._read_damage()
        self._index.avoid(self._hurt.union(*(each.packs for each in lists.values())))
        return True

    def _read_damage(self) -> None:
        """Learn which packs are known to be damaged."""
        numbers = ledger_numbers(self._storage)
        if numbers != self._ledgers:
            self._hurt = damaged_packs(read_damage(self._storage, self._keys))
            self._ledgers = numbers

    def _pack_index(self, pack: bytes, size: int) -> NDArray[np.void]:
        try:
            return read_pack_index(self._storage, self._keys, pack, size)
        except Damaged as error:
            self._on_damage(error)
        with contextlib.suppress(Damaged):
            return salvage_pack_index(self._storage, self._keys, pack, size)
        return np.empty(0, dtype=FOOTER_ROW)
