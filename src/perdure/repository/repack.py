"""Repacking: copying the chunks that are still needed out of packs that are mostly garbage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perdure.model.errors import Damaged
from perdure.repository.packs import PackWriter
from perdure.repository.pool import Pool
from perdure.storage.contract import StorageFull

__all__ = ["Repacked", "Thin", "repack"]

BATCH = 1 << 30
"""Bytes after which a batch is made durable, so that a run that is cut off repeats no more than this."""


@dataclass(frozen=True, slots=True)
class Thin:
    """A pack to be repacked.

    Args:
        pack: Its id.
        chunks: The chunks in it that are needed, in the order in which they lie.
        size: Bytes of the whole pack.
    """

    pack: bytes
    chunks: Sequence[bytes]
    size: int


@dataclass(frozen=True, slots=True)
class Repacked:
    """A batch that is durable.

    Args:
        packs: The old packs; everything needed of them lies in new ones too.
        written: Bytes of the new packs.
        damaged: What could not be read; the packs that hold it are not among ``packs``.
    """

    packs: frozenset[bytes]
    written: int
    damaged: tuple[Damaged, ...] = ()


def repack(pool: Pool, thin: Sequence[Thin]) -> Iterator[Repacked]:
    """Copy needed chunks into new packs, batch by batch.

    A batch is durable and in the index when it is yielded. When the storage is full the batch is given up, and
    the old packs stay as they are.
    """
    batch: list[Thin] = []
    size = 0
    for each in thin:
        batch.append(each)
        size += each.size
        if size >= BATCH:
            yield from _attempt(pool, batch)
            batch, size = [], 0
    if batch:
        yield from _attempt(pool, batch)


def _attempt(pool: Pool, batch: Sequence[Thin]) -> Iterator[Repacked]:
    try:
        yield _copied(pool, batch)
    except StorageFull:
        return


def _copied(pool: Pool, batch: Sequence[Thin]) -> Repacked:
    storage, keys = pool.storage, pool.keys
    writer: PackWriter | None = None
    finished = []
    done: set[bytes] = set()
    damaged: list[Damaged] = []
    try:
        for each in batch:
            try:
                for _, content in pool.read_chunks(each.chunks):
                    writer = writer or PackWriter(storage, keys)
                    writer.add(keys.content_id(content), content)
                    if writer.full:
                        finished.append((writer.pack, *writer.finish()))
                        writer = None
                done.add(each.pack)
            except Damaged as error:
                damaged.append(error)
        if writer is not None:
            finished.append((writer.pack, *writer.finish()))
            writer = None
        storage.barrier([pending for _, pending, _, _ in finished])
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    for pack, _, rows, size in finished:
        pool.index.add_pack(pack, size, rows)
    return Repacked(frozenset(done), sum(size for *_, size in finished), tuple(damaged))
