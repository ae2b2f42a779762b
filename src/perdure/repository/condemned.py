"""Condemned lists: the packs that a garbage collection means to delete, published before it deletes them.

``gc/NNNNNNNN`` is a sealed document; numbers count up from 1 and each is given once (create-if-absent), so that all
lists are in one order and whoever publishes has seen every earlier one. A list without packs is a marker: it stays
as the highest number when the lists before it were carried out and removed, so that a process can tell from the
numbers alone that it missed something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from perdure.model.errors import Damaged
from perdure.repository.container import Kind
from perdure.repository.documents import numbered, read_document, write_document
from perdure.repository.keys import KeyRing
from perdure.storage.contract import Storage

__all__ = ["CondemnedList", "condemned_name", "condemned_numbers", "publish_condemned", "read_condemned"]

_PREFIX = "gc"
_PACK = 16


@dataclass(frozen=True, slots=True)
class _Stored:
    packs: bytes


@dataclass(frozen=True, slots=True)
class CondemnedList:
    """One list.

    Args:
        number: Its place in the order of all lists.
        packs: Pack ids; empty for a marker.
        published_ns: When, by the storage's clock.
    """

    number: int
    packs: frozenset[bytes]
    published_ns: int = 0

    @property
    def name(self) -> str:
        return condemned_name(self.number)


def condemned_name(number: int) -> str:
    """Object name of a list."""
    return f"{_PREFIX}/{number:08d}"


def condemned_numbers(storage: Storage) -> dict[int, int]:
    """The numbers of all lists, ascending, each with the moment of its publication by the storage's clock."""
    found = {}
    for listed in storage.list(_PREFIX):
        number = numbered(listed.name)
        if number is not None:
            found[number] = listed.modified_ns
    return found


def read_condemned(storage: Storage, keys: KeyRing, number: int, published_ns: int = 0) -> CondemnedList:
    """Read a list.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: It was carried out and removed meanwhile.
    """
    try:
        stored = read_document(storage, keys, condemned_name(number), Kind.CONDEMNED, _Stored)
    except Damaged as error:
        raise _unreadable(error.message) from error
    if len(stored.packs) % _PACK:
        raise _unreadable(f"{condemned_name(number)} is damaged: it holds half a pack id")
    packs = frozenset(stored.packs[at : at + _PACK] for at in range(0, len(stored.packs), _PACK))
    return CondemnedList(number, packs, published_ns)


def _unreadable(what: str) -> Damaged:
    return Damaged(
        f"{what}; while it is not known what is condemned nothing new is stored",
        code="damaged-object",
        hint="perdure gc removes the damaged list; nothing is lost by that",
    )


def publish_condemned(storage: Storage, keys: KeyRing, number: int, packs: Iterable[bytes]) -> CondemnedList:
    """Publish a list; durable and seen by everybody on return.

    Whoever does holds the lease of a collection or of a capture since before the look at the numbers that are taken:
    it keeps lists above that from being carried out and removed, so that no number is given twice.

    Raises:
        ObjectExists: Another process published this number: what it condemned has to be looked at first.
    """
    listed = sorted(packs)
    write_document(storage, keys, condemned_name(number), Kind.CONDEMNED, _Stored(b"".join(listed)))
    return CondemnedList(number, frozenset(listed))
