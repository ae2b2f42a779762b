"""Making a storage pool, and opening one with a passphrase, a key file or a recovery key."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from perdure.model.errors import Refused
from perdure.repository.container import FORMAT_VERSION
from perdure.repository.descriptor import Descriptor, read_descriptor, write_descriptor
from perdure.repository.key_sets import open_ring
from perdure.repository.keys import Passphrase, RecoveryKey, Secret
from perdure.repository.pool import Pool
from perdure.repository.slots import new_slot_name, seal_slot, write_slot
from perdure.storage.contract import ObjectExists, Storage

__all__ = ["create_pool", "open_pool"]


def create_pool(storage: Storage, passphrase: bytes, cache_dir: Path) -> tuple[Pool, str]:
    """Make a pool on an empty storage.

    Returns:
        The pool and the recovery key in its form for paper; it is kept nowhere.

    Raises:
        Refused: There is something here already.
    """
    if any(True for _ in storage.list("")):
        raise Refused(
            f"{storage.url} is not empty; a pool is only made in an empty place",
            code="pool-exists",
            hint="choose an empty or new directory; to use a pool that exists: perdure pool open PATH",
        )
    descriptor = Descriptor(format=FORMAT_VERSION, id=secrets.token_hex(16), created_ns=time.time_ns())
    master, recovery, pool = secrets.token_bytes(32), RecoveryKey.random(), bytes.fromhex(descriptor.id)
    for secret in (Passphrase(passphrase), recovery):
        write_slot(storage, new_slot_name(secret, ()), seal_slot((master,), secret, pool))
    try:
        write_descriptor(storage, descriptor)
    except ObjectExists as error:
        raise Refused(f"another process made a pool at {storage.url}", code="pool-exists") from error
    keys = open_ring(storage, Passphrase(passphrase), pool)
    return Pool(storage, keys, descriptor, cache_dir), recovery.text()


def open_pool(storage: Storage, secret: Secret, cache_dir: Path) -> Pool:
    """Open a pool.

    Args:
        storage: Where it lies.
        secret: Passphrase, key file or recovery key; the pool keeps it, to read keys that a rotation adds later.
        cache_dir: Directory for this pool's local cache; may be empty or new.

    Raises:
        NotFound: There is no pool here.
        PoolUnusable: Wrong secret, or a newer format.
        Damaged: The descriptor is damaged, or a key slot that the secret may open while no other does.
    """
    descriptor = read_descriptor(storage)
    return Pool(storage, open_ring(storage, secret, bytes.fromhex(descriptor.id)), descriptor, cache_dir)
