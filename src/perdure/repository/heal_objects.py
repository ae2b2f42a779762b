"""Healing of single objects: from their twin, from another pool, or by removing what is only in the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from perdure.model.logs import LogSegment, LogSpan
from perdure.repository import logs, records
from perdure.repository.condemned import condemned_numbers, publish_condemned
from perdure.repository.container import ContainerWriter, Kind, read_sealed
from perdure.repository.damage import Damage, failures_of
from perdure.repository.descriptor import check_descriptor
from perdure.repository.documents import numbered
from perdure.repository.keys import KeyRing
from perdure.repository.pool import Pool
from perdure.repository.replacing import put_in_place, replace_object, rescued_name
from perdure.repository.second_copy import SecondCopy
from perdure.repository.small_objects import check_key
from perdure.storage.contract import Buffer, ObjectExists, ObjectInfo

__all__ = ["heal_object"]

_FROM_TWIN = "from its twin"


def heal_object(pool: Pool, damage: Damage, other: SecondCopy | None) -> str:
    """Heal one object that is no pack.

    Args:
        pool: The pool.
        damage: What is damaged.
        other: Another pool with the same points.

    Returns:
        How it was healed; empty if there is nothing to heal it from.

    Raises:
        PerdureError: The storage fails. A good copy is left in every case.
    """
    storage, name = pool.storage, damage.object
    if damage.kind == "descriptor":
        twin = "pool" if name == "pool.copy" else "pool.copy"
        return _from_twin(pool, name, twin, lambda: check_descriptor(storage.read(twin), twin))
    if damage.kind == "key slot":
        return _from_twin(pool, name, _twin(name), partial(check_key, storage, _twin(name)))
    if damage.kind == "source":
        twin = _twin(name)
        return _from_twin(pool, name, twin, partial(records.read_source, storage, pool.keys, twin)) or _from_other(
            pool, name, Kind.SOURCE, other
        )
    if damage.kind == "hold":
        return _from_other(pool, name, Kind.HOLD, other)
    if damage.kind == "record":
        return _record(pool, name, other)
    if damage.kind == "log":
        return _log(pool, name, other)
    remove = {
        "condemned list": _remove_list,
        "ledger": _remove_ledger,
        "policy": _remove_old_policy,
        "drill": _remove_drill,
    }.get(damage.kind)
    return remove(pool, name) if remove is not None else ""


def _twin(name: str) -> str:
    return name.removesuffix(".copy") if name.endswith(".copy") else f"{name}.copy"


def _from_twin(pool: Pool, name: str, twin: str, check: Callable[[], object]) -> str:
    try:
        check()
        content = pool.storage.read(twin)
    except failures_of(pool.storage):
        return ""
    replace_object(pool.storage, name, content)
    return _FROM_TWIN


# --- from the other pool -----------------------------------------------------------------------------


def _from_other(pool: Pool, name: str, kind: Kind, other: SecondCopy | None) -> str:
    """A document without chunk ids is the same in both pools, but for its seal."""
    if other is None:
        return ""
    try:
        footer = read_sealed(other.other.storage, name, kind, other.other.keys)
    except failures_of(other.other.storage):
        return ""
    replace_object(pool.storage, name, sealed(kind, pool.keys, footer))
    return f"from {other.name}"


def _record(pool: Pool, name: str, other: SecondCopy | None) -> str:
    number = records.point_number(name)
    footer = other.record(name.split("/")[1], number) if other is not None and number is not None else None
    if other is None or footer is None:
        return ""
    replace_object(pool.storage, name, sealed(Kind.POINT, pool.keys, footer))
    return f"from {other.name}"


def _log(pool: Pool, name: str, other: SecondCopy | None) -> str:
    """A damaged segment, or those that are missing before one."""
    span = logs.span_of(ObjectInfo(name, 0))
    if other is None or span is None:
        return ""
    ours = {listed.name: listed for listed in pool.storage.list(name.rsplit("/", 1)[0])}
    theirs = {listed.name: listed for listed in other.other.storage.list(name.rsplit("/", 1)[0])}
    spans = {each: found for each, listed in theirs.items() if (found := logs.span_of(listed)) is not None}
    if _is_sound(pool, ours.get(name)):
        present = [found for listed in ours.values() if (found := logs.span_of(listed)) is not None]
        wanted = [each for each in spans.values() if each.name not in ours and _fills_gap(each, span, present)]
    else:
        wanted = [spans[name]] if name in spans else []
    healed = [each for each in wanted if _copy_segment(pool, each, other)]
    return f"from {other.name}" if healed and len(healed) == len(wanted) else ""


def _fills_gap(candidate: LogSpan, after_gap: LogSpan, present: list[LogSpan]) -> bool:
    """Whether a segment lies between the log before a gap and that after it."""
    before = [
        each.last_place
        for each in present
        if each.generation == after_gap.generation and each.after_place < after_gap.after_place
    ]
    return (
        candidate.generation == after_gap.generation
        and bool(before)
        and max(before) < candidate.last_place <= after_gap.after_place
    )


def _is_sound(pool: Pool, listed: ObjectInfo | None) -> bool:
    if listed is None:
        return False
    span = logs.span_of(listed)
    try:
        assert span is not None
        for _ in logs.read_blocks(pool.storage, pool.keys, span):
            pass
    except failures_of(pool.storage):
        return False
    return True


def _copy_segment(pool: Pool, span: LogSpan, other: SecondCopy) -> bool:
    """Write a segment of the other pool under this one's keys."""
    source = span.name.split("/")[1]
    storage, rescued = pool.storage, rescued_name(span.name)
    try:
        stored = logs.read_segment(other.other.storage, other.other.keys, span)
        blocks = list(logs.read_blocks(other.other.storage, other.other.keys, span))
    except failures_of(other.other.storage):
        return False
    segment = LogSegment(stored.after, stored.last, stored.marks, stored.chain, stored.index, blocks)
    storage.delete(rescued)
    logs.append_segment(storage, pool.keys, source, segment, name=rescued, written_ns=stored.durable_ns)
    put_in_place(storage, span.name)
    return True


# --- removed -----------------------------------------------------------------------------------------


def _remove_list(pool: Pool, name: str) -> str:
    """Remove a condemned list; the highest number must stay taken."""
    number, highest = numbered(name), max(condemned_numbers(pool.storage), default=0)
    if number == highest:
        with contextlib.suppress(ObjectExists):
            publish_condemned(pool.storage, pool.keys, highest + 1, ())
    pool.storage.delete(name)
    return "removed: what it condemned is not condemned any more"


def _remove_ledger(pool: Pool, name: str) -> str:
    pool.storage.delete(name)
    return "removed: what it held is found again by reading"


def _remove_drill(pool: Pool, name: str) -> str:
    pool.storage.delete(name)
    return "removed: a new drill of the point takes its place"


def _remove_old_policy(pool: Pool, name: str) -> str:
    """Remove a policy that a newer one has replaced."""
    number = numbered(name) or 0
    if not any((numbered(listed.name) or 0) > number for listed in pool.storage.list(name.rsplit("/", 1)[0])):
        return ""
    pool.storage.delete(name)
    return "removed: a newer one has replaced it"


# --- sealing -----------------------------------------------------------------------------------------


class _InMemory:
    """A staged object that is never published; implements ``Staged``."""

    def __init__(self) -> None:
        self.content = bytearray()

    @property
    def size(self) -> int:
        return len(self.content)

    def write(self, *buffers: Buffer) -> None:
        for buffer in buffers:
            self.content += buffer

    def discard(self) -> None:
        self.content.clear()


def sealed(kind: Kind, keys: KeyRing, footer: bytes) -> bytes:
    """The bytes of a document."""
    staged = _InMemory()
    ContainerWriter(staged, kind, keys).finish(footer)
    return bytes(staged.content)
