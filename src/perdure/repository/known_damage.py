"""What the ledger's damage means: for recovery points, for log, for packs and for the chunks in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from perdure.repository.damage import MISSING, Damage
from perdure.repository.keys import KeyRing
from perdure.repository.ledger import read_damage
from perdure.repository.packs import pack_id
from perdure.storage.contract import Storage

__all__ = ["damaged_copies", "damaged_log", "damaged_packs", "damaged_points", "known_damage"]


class Pool(Protocol):
    """What knowing a pool's damage needs of it."""

    @property
    def storage(self) -> Storage: ...

    @property
    def keys(self) -> KeyRing: ...


def damaged_points(damage: Iterable[Damage]) -> dict[str, dict[int, str]]:
    """By source id the numbers of the points that damage touches, each with the words that say how."""
    found: dict[str, dict[int, str]] = {}
    for each in damage:
        for source, number in each.points:
            known = found.setdefault(source, {})
            known[number] = "; ".join(filter(None, (known.get(number), _words(each))))
    return found


def damaged_log(damage: Iterable[Damage]) -> dict[str, dict[str, str]]:
    """By source id the names of damaged log segments, each with the words that say how."""
    found: dict[str, dict[str, str]] = {}
    for each in damage:
        if each.kind == "log":
            found.setdefault(each.object.split("/")[1], {})[each.object] = each.what
    return found


def _words(damage: Damage) -> str:
    return damage.what if damage.object == MISSING else f"{damage.object}: {damage.what}"


def known_damage(pool: Pool) -> dict[str, dict[int, str]]:
    """By source id the numbers of the points that are known not to recover whole, each with the words that say why."""
    return damaged_points(read_damage(pool.storage, pool.keys))


def damaged_packs(damage: Iterable[Damage]) -> frozenset[bytes]:
    """The ids of packs in which something is damaged."""
    return frozenset(pack for each in damage if (pack := pack_id(each.object)) is not None)


def damaged_copies(damage: Iterable[Damage]) -> Mapping[bytes, frozenset[bytes]]:
    """By pack id the chunks whose copies there are damaged."""
    found: dict[bytes, frozenset[bytes]] = {}
    for each in damage:
        pack = pack_id(each.object)
        if pack is not None and each.chunks:
            found[pack] = frozenset(each.chunks) | found.get(pack, frozenset())
    return found
