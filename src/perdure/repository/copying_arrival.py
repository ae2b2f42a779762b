"""Verification at arrival: what was written to a pool is read back from its storage, unsealed and hashed.

It happens before anything names it. What reads back wrong is condemned, so that nobody ever relies on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from perdure.model.errors import Damaged
from perdure.repository.condemned import publish_condemned
from perdure.repository.container import BLOCK_HEADER, HEADER_SIZE, open_block
from perdure.repository.leases import WorkLease, take_collection_lease
from perdure.repository.packs import pack_name, read_pack_index
from perdure.repository.pool import Pool
from perdure.storage.contract import ObjectMissing

__all__ = ["DamagedOnArrival", "verify_chunks", "verify_packs"]

_PATIENCE_S = 600
_RUN = 8 << 20
"""Blocks are read back together up to this many bytes."""


class DamagedOnArrival(Damaged):
    """A pool does not read back what was just written to it."""

    default_code = "damaged-on-arrival"


def verify_packs(pool: Pool, packs: Sequence[tuple[bytes, int]], *, threads: int = 2) -> None:
    """Read packs back whole.

    Args:
        pool: The pool.
        packs: Ids and sizes, as they were written.
        threads: Packs that are read at once.

    Raises:
        DamagedOnArrival: One is not what was written; those that are not are condemned.
    """
    bad: dict[bytes, str] = {}

    def verify(pack: tuple[bytes, int]) -> None:
        try:
            _verify_pack(pool, *pack)
        except (Damaged, ObjectMissing) as error:
            bad[pack[0]] = error.message

    with ThreadPoolExecutor(threads, thread_name_prefix="verify-arrival") as workers:
        for _ in workers.map(verify, packs):
            pass
    _refuse(pool, bad)


def verify_chunks(pool: Pool, chunks: Sequence[bytes], *, threads: int = 2) -> None:
    """Read chunks back that the pool had already, though no point was known to name them.

    Raises:
        DamagedOnArrival: One is not what it should be; the packs that hold such are condemned.
    """
    bad: dict[bytes, str] = {}
    guard = threading.Lock()

    def verify(number: int, content: bytes) -> None:
        if pool.chunk_id(content) != chunks[number]:
            note(chunks[number], "its content does not match its id")

    def note(chunk: bytes, why: str) -> None:
        place = pool.index.find(chunk)
        if place is not None:
            with guard:
                bad[place.pack] = f"chunk {chunk.hex()[:16]}: {why}"

    try:
        pool.for_each_chunk(chunks, verify, threads=threads)
    except (Damaged, ObjectMissing):
        for number, chunk in enumerate(chunks):
            try:
                verify(number, pool.read_chunk(chunk))
            except (Damaged, ObjectMissing) as error:
                note(chunk, error.message)
    _refuse(pool, bad)


def _verify_pack(pool: Pool, pack: bytes, size: int) -> None:
    name, storage = pack_name(pack), pool.storage
    rows = read_pack_index(storage, pool.keys, pack, size)
    header = storage.read_range(name, 0, HEADER_SIZE)
    blocks = [(row["id"].tobytes(), int(row["offset"]), BLOCK_HEADER + int(row["stored"])) for row in rows]
    for run in _runs(blocks):
        start = run[0][1]
        data = memoryview(storage.read_range(name, start, run[-1][1] + run[-1][2] - start))
        for chunk, offset, length in run:
            _, content = open_block(pool.keys, header, data[offset - start : offset - start + length], name, chunk)
            if pool.chunk_id(content) != chunk:
                raise Damaged(f"{name} is damaged: a chunk's content does not match its id", code="damaged-chunk")


def _runs(blocks: Iterable[tuple[bytes, int, int]]) -> Iterable[list[tuple[bytes, int, int]]]:
    run: list[tuple[bytes, int, int]] = []
    for block in blocks:
        if run and block[1] + block[2] - run[0][1] > _RUN:
            yield run
            run = []
        run.append(block)
    if run:
        yield run


def _refuse(pool: Pool, bad: dict[bytes, str]) -> None:
    if not bad:
        return
    _condemn(pool, bad)
    raise DamagedOnArrival(
        f"what was written to {pool.storage.url} does not read back as it was written: {next(iter(bad.values()))}; "
        "it was set aside, and no recovery point names it",
        hint="run the command again, which ships it again; if it happens again, do not trust this pool's storage, "
        "or this machine's memory",
    )


def _condemn(pool: Pool, packs: Iterable[bytes]) -> None:
    """Condemn packs, as a collection does: only one process at a time may publish a list."""
    lease = _collection_lease(pool)
    if lease is None:
        # Whoever comes upon them later reads them before relying on them.
        return
    try:
        number = max(pool.matched.heed_condemned(), default=0) + 1
        lease.check()
        publish_condemned(pool.storage, pool.keys, number, packs)
        pool.matched.heed_condemned()
    finally:
        lease.release()


def _collection_lease(pool: Pool) -> WorkLease | None:
    """The lease of a collection, as soon as no other collection is at work; ``None`` if that does not come to pass."""
    for _ in range(_PATIENCE_S):
        lease = take_collection_lease(pool.storage)
        if lease is not None:
            return lease
        time.sleep(1)
    return None
