"""Verification and recovery against what the machine can do at best with the same packs.

The ceilings are loops over the same pack files in two threads of one process, with the same libraries and without any
bookkeeping. Of verification: read a pack file whole, decrypt, decompress and hash every block. Of recovery: the same
without the hash, and write the content of every block to a file, one after the other, which is synced at the end. Both
sides run in turn in one process with a warm page cache, and processes start before the clock does.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time

import zstandard
from pruning import SOURCE, Pages
from tools import Cost
from workspace import Workspace

from perdure.model.points import PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.protection.image_restore import write_file
from perdure.protection.imaging import first_file, store_whole
from perdure.protection.progress import quiet
from perdure.repository.keys import KeyRing
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.local import LocalStorage

VERIFY = "verify --data"
RECOVER = "recover"
CEILING = "ceiling"
THREADS = 2

_BLOCK = struct.Struct("<4sIIIB7x32s")
_LOCAL = threading.local()
_LARGEST = 80 << 20
"""Bytes of the largest pack: 64 MiB and what its last chunk takes beyond."""


def verifying(space: Workspace) -> None:
    """Verify and recover one image of a database, half of every page incompressible, in turn with the ceilings."""
    work = space.fresh("verifying")
    pool, _ = create_pool(LocalStorage(work / "pool", create=True), b"x", work / "cache")
    point, size = _filled(pool, space.bytes(1.5))
    packs = [path for path in (work / "pool" / "packs").rglob("*") if path.is_file()]
    for case in (VERIFY, RECOVER):
        space.results.begin(case)
    target = work / "recovered"
    steps: list[tuple[str, str, Callable[[], object]]] = [
        (VERIFY, CEILING, lambda: _ceiling(packs, pool.keys, None)),
        (VERIFY, "perdure", lambda: _sound(pool)),
        (RECOVER, CEILING, lambda: _ceiling(packs, pool.keys, target)),
        (RECOVER, "perdure", lambda: write_file(pool, point.files[0], target, quiet, threads=THREADS)),
    ]
    for round_ in range(1, space.rounds + 1):
        for case, tool, step in steps if round_ % 2 else reversed(steps):
            target.unlink(missing_ok=True)
            os.sync()
            begun, cpu = perf_counter(), process_time()
            step()
            cost = Cost(f"{case}, {tool}", perf_counter() - begun, process_time() - cpu, 0, {})
            space.results.add(case, tool, round_, cost, size=size)
    shutil.rmtree(work)


def _filled(pool: Pool, size: int) -> tuple[RecoveryPoint, int]:
    pages = Pages(size)
    capture = pool.capture(SOURCE.id)
    file = first_file(pages, store_whole(pages, capture), capture)
    draft = RecoveryPoint(0, SOURCE.id, PointKind.EXPRESS_FULL, 1, Position(1, 1), files=(file,))
    return capture.commit(draft), pages.size


def _sound(pool: Pool) -> None:
    if not verify_pool(pool, data=True, threads=THREADS).sound:
        raise RuntimeError("the pool is damaged")


def _ceiling(packs: list[Path], keys: KeyRing, target: Path | None) -> None:
    """Decode every block, and hash it, or write it to the target."""
    at, lock = 0, threading.Lock()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600) if target is not None else -1

    def decode(path: Path) -> None:
        nonlocal at
        for content in _blocks(path, keys):
            if target is None:
                keys.content_id(content)
                continue
            with lock:
                offset, at = at, at + len(content)
            os.pwrite(descriptor, content, offset)

    with ThreadPoolExecutor(THREADS) as workers:
        for _ in workers.map(decode, packs):
            pass
    if target is not None:
        os.fsync(descriptor)
        os.close(descriptor)


def _blocks(path: Path, keys: KeyRing) -> Iterator[bytes]:
    """The content of every block of a pack."""
    if not hasattr(_LOCAL, "buffer"):
        # Of one thread, and used for every pack: the kernel gives out new memory more slowly than it copies.
        _LOCAL.buffer = bytearray(_LARGEST)
        _LOCAL.decompressor = zstandard.ZstdDecompressor()
    with path.open("rb", buffering=0) as opened:
        data = memoryview(_LOCAL.buffer)[: opened.readinto(_LOCAL.buffer)]
    header = bytes(data[:32])
    cipher = keys.object_cipher(header, header[11])
    offset = 32
    while data[offset : offset + 4] == b"BLK1":
        head = data[offset : offset + _BLOCK.size]
        _, stored, raw, number, codec, _ = _BLOCK.unpack(head)
        begin = offset + _BLOCK.size
        body = cipher.decrypt(struct.pack("<IQ", 0, number), data[begin : begin + stored], header + bytes(head))
        yield _LOCAL.decompressor.decompress(body, max_output_size=raw) if codec else body
        offset = begin + stored
