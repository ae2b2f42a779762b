"""Making a storage pool, and opening one with a passphrase or a recovery key."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from perdure.model.errors import Damaged, Refused
from perdure.repository.container import FORMAT_VERSION
from perdure.repository.descriptor import Descriptor, read_descriptor, write_descriptor
from perdure.repository.keys import KeyRing, KeySlot, Passphrase, RecoveryKey, Secret, open_slots, seal_slot
from perdure.repository.pool import Pool
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
        slot = seal_slot(master, secret, pool)
        name = f"keys/{slot.kind}-{secrets.token_hex(4)}"
        storage.create(name + ".copy", slot.encoded())
        storage.create(name, slot.encoded())
    try:
        write_descriptor(storage, descriptor)
    except ObjectExists as error:
        raise Refused(f"another process made a pool at {storage.url}", code="pool-exists") from error
    return Pool(storage, KeyRing(master), descriptor, cache_dir), recovery.text()


def open_pool(storage: Storage, secret: Secret, cache_dir: Path) -> Pool:
    """Open a pool.

    Args:
        storage: Where it lies.
        secret: Passphrase or recovery key.
        cache_dir: Directory for this pool's local cache; may be empty or new.

    Raises:
        NotFound: There is no pool here.
        PoolUnusable: Wrong secret, or a newer format.
        Damaged: The descriptor or every key slot is damaged.
    """
    descriptor = read_descriptor(storage)
    slots, failure = [], None
    for listed in storage.list("keys"):
        try:
            slots.append(KeySlot.decode(storage.read(listed.name), listed.name))
        except Damaged as error:
            failure = error
    wanted = "recovery" if isinstance(secret, RecoveryKey) else "passphrase"
    if failure is not None and not any(slot.kind == wanted for slot in slots):
        raise failure
    distinct = list({slot.sealed: slot for slot in slots}.values())
    return Pool(storage, open_slots(distinct, secret, bytes.fromhex(descriptor.id)), descriptor, cache_dir)
