"""Healing of packs: the chunks that points need move to new packs, and damaged packs are condemned.

The order, and why nothing is lost by it, is told in :mod:`perdure.repository.heal`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from perdure.repository.condemned import publish_condemned
from perdure.repository.damage import MISSING, Damage, failures_of
from perdure.repository.damage_walk import DamageWalk
from perdure.repository.healing_run import HealingRun
from perdure.repository.new_packs import NewPacks
from perdure.repository.packs import pack_id
from perdure.repository.pool import Pool
from perdure.repository.records import read_point
from perdure.repository.whole_reading import known_rows, read_pack
from perdure.storage.contract import ObjectExists, ObjectMissing

__all__ = ["heal_packs"]

_CONDEMNED = "what is sound in it lies elsewhere too, and it is condemned"

Points = tuple[tuple[str, int], ...]


def heal_packs(run: HealingRun, damage: Sequence[Damage]) -> None:
    """Give points back the content of chunks that are damaged or missing, and condemn packs that nothing needs then.

    Args:
        run: The healing.
        damage: Damaged packs and missing chunks.

    Raises:
        StorageFull: No room; nothing was condemned.
    """
    if not damage:
        return
    pool = run.pool
    # From here on the index prefers every copy that does not lie in a damaged pack.
    pool.matched.refresh()
    listed = {pack_id(each.name): each.size for each in pool.storage.list("packs")}
    hurt = {pack: each for each in damage if (pack := pack_id(each.object)) is not None and pack in listed}
    # What is not avoided by everybody cannot be told from a sound copy.
    hurt = {pack: each for pack, each in hurt.items() if pack in pool.matched.avoided()}
    needed = _needed(pool, frozenset(chunk for each in damage for chunk in each.chunks))
    wanted = {chunk: points for chunk, points in needed.items() if not pool.index.has(chunk)}
    how: dict[bytes, str] = {}
    with NewPacks(pool, run.lease.renew_if_due) as packs:
        for chunk, content, origin in _good_content(run, wanted, {pack: listed[pack] for pack in hurt}):
            if chunk not in how:
                packs.add(chunk, content)
                how[chunk] = origin
        packs.make_durable()
        run.look_at.update(packs.names)
        run.written += packs.written
    lost = wanted.keys() - how.keys()
    for each in damage:
        if each.object == MISSING and not how.keys().isdisjoint(each.chunks):
            run.note(each.object, each.kind, _words(each, how))
    _retire(run, {pack: each for pack, each in hurt.items() if lost.isdisjoint(each.chunks)}, listed, how)
    for each in hurt.values():
        if not lost.isdisjoint(each.chunks) and not how.keys().isdisjoint(each.chunks):
            run.note(each.object, each.kind, _words(each, how))


def _words(damage: Damage, how: Mapping[bytes, str]) -> str:
    healed = [how[chunk] for chunk in damage.chunks if chunk in how]
    number = f"{len(healed):,} {'chunk' if len(healed) == 1 else 'chunks'}"
    return f"{number} from {', '.join(sorted(set(healed)))}" if healed else ""


def _good_content(
    run: HealingRun, wanted: Mapping[bytes, Points], hurt: Mapping[bytes, int]
) -> Iterator[tuple[bytes, bytes, str]]:
    """Content of wanted chunks, checked, with where it comes from; a chunk may come several times.

    Args:
        run: The healing.
        wanted: Ids of chunks, each with the points that need it.
        hurt: Damaged packs and their sizes.
    """
    left = set(wanted)
    for origin in (_OwnCopies(run, hurt), *run.origins):
        if not left:
            return
        points = sorted({point for chunk in left for point in wanted[chunk]}, key=_newest_first)
        for chunk, content in origin.contents(frozenset(left), points):
            run.lease.renew_if_due()
            run.progress(len(content))
            if chunk in left and run.pool.keys.content_id(content) == chunk:
                left.discard(chunk)
                yield chunk, content, origin.name


def _newest_first(point: tuple[str, int]) -> tuple[str, int]:
    source, number = point
    return source, -number


class _OwnCopies:
    """What the pool itself still has: in damaged packs that are readable by other means, and in condemned ones."""

    name = "this pool"

    def __init__(self, run: HealingRun, hurt: Mapping[bytes, int]) -> None:
        self._run = run
        self._hurt = hurt

    def contents(self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]) -> Iterator[tuple[bytes, bytes]]:
        """As :class:`Origin`; the points do not matter."""
        del points
        pool = self._run.pool
        failures = failures_of(pool.storage)
        left = set(wanted)
        for chunk in wanted:
            with contextlib.suppress(*failures):
                content = pool.read_chunk(chunk)
                left.discard(chunk)
                yield chunk, content
        for pack, size in self._hurt.items():
            if left:
                found = _contents_of(pool, pack, size, left)
                yield from found
                left.difference_update(chunk for chunk, _ in found)


def _contents_of(pool: Pool, pack: bytes, size: int, wanted: Collection[bytes]) -> list[tuple[bytes, bytes]]:
    """What of a damaged pack can be read after all. A pack is small enough to be held."""
    found: list[tuple[bytes, bytes]] = []

    def take(chunk: bytes, content: bytes) -> None:
        if chunk in wanted:
            found.append((chunk, content))

    with contextlib.suppress(*failures_of(pool.storage)):
        read_pack(pool.storage, pool.keys, pack, size, known=partial(known_rows, pool, pack), on_content=take)
    return found


def _retire(
    run: HealingRun, hurt: Mapping[bytes, Damage], sizes: Mapping[bytes | None, int], how: Mapping[bytes, str]
) -> None:
    """Copy what is sound in damaged packs and lies nowhere else, and condemn them."""
    pool = run.pool
    if not hurt:
        return
    copied = []
    with NewPacks(pool, run.lease.renew_if_due) as packs:
        for pack, each in hurt.items():
            reading = read_pack(
                pool.storage,
                pool.keys,
                pack,
                sizes[pack],
                known=partial(known_rows, pool, pack),
                on_content=packs.add_if_new,
                progress=run.progress,
            )
            run.look_at.add(each.object)
            # What has become unreadable only since the verification is looked at anew in the next round.
            if reading.hurt.keys() <= set(each.chunks):
                copied.append(pack)
        packs.make_durable()
        run.look_at.update(packs.names)
        run.written += packs.written
    if not copied:
        return
    _condemn(run, copied)
    run.condemned += len(copied)
    for each in map(hurt.__getitem__, copied):
        words = _words(each, how)
        run.note(each.object, each.kind, f"{words}; {_CONDEMNED}" if words else _CONDEMNED[:1].upper() + _CONDEMNED[1:])


def _condemn(run: HealingRun, packs: Collection[bytes]) -> None:
    """Publish a condemned list."""
    pool = run.pool
    while True:
        number = max(pool.matched.heed_condemned(), default=0) + 1
        run.lease.check()
        with contextlib.suppress(ObjectExists):
            publish_condemned(pool.storage, pool.keys, number, packs)
            break
    pool.matched.heed_condemned()


def _needed(pool: Pool, chunks: frozenset[bytes]) -> dict[bytes, Points]:
    """Those of some chunks that points name, each with the points. All of them when a point cannot be followed."""
    numbered = sorted(chunks)
    walk = DamageWalk(pool, pool.index.snapshot(), {chunk: (number,) for number, chunk in enumerate(numbered)})
    points: list[tuple[str, int]] = []
    unknown = False
    for listed in pool.storage.list("points"):
        try:
            point = read_point(pool.storage, pool.keys, listed.name)
        except ObjectMissing:
            continue
        except failures_of(pool.storage):
            unknown = True
            continue
        walk.visit(point)
        points.append((point.source, point.number))
    touched = walk.touched()
    by_number = {number: tuple(points[at] for at in sorted(found)) for number, found in touched.hurt.items()}
    lacking = tuple(points[at] for at in sorted(touched.missing))
    guess = tuple(points) if unknown or walk.broken else ()
    needed = {}
    for number, chunk in enumerate(numbered):
        affected = by_number.get(number) or (lacking if chunk in walk.missing else ()) or guess
        if affected:
            needed[chunk] = affected
    return needed
