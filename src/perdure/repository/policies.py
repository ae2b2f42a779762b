"""Retention policies in the pool: ``policies/SOURCE/NUMBER``, of which the highest number counts.

A policy is changed by writing the next number; the one before is kept, in case the newest is damaged, and those
before that are removed. While the newest cannot be read, nothing is deleted: the one before may have been made to keep
less.
"""

from __future__ import annotations

from dataclasses import replace

from perdure.model.errors import Damaged
from perdure.model.retention import RetentionPolicy
from perdure.repository.container import Kind
from perdure.repository.documents import numbered, read_document, write_document
from perdure.repository.keys import KeyRing
from perdure.storage.contract import ObjectMissing, Storage

__all__ = ["read_policy", "write_policy"]

_KEPT = 2


def _numbers(storage: Storage, source: str) -> list[int]:
    found = (numbered(listed.name) for listed in storage.list(f"policies/{source}"))
    return sorted(number for number in found if number is not None)


def _name(source: str, number: int) -> str:
    return f"policies/{source}/{number:08d}"


def read_policy(storage: Storage, keys: KeyRing, source: str) -> RetentionPolicy | None:
    """The policy of a source, ``None`` if it never had one; the one before, without its range, if it is damaged.

    Raises:
        Damaged: It had, and none can be read.
    """
    failure: Damaged | None = None
    for number in reversed(_numbers(storage, source)):
        try:
            policy = read_document(storage, keys, _name(source, number), Kind.POLICY, RetentionPolicy)
        except Damaged as error:
            failure = error
            continue
        except ObjectMissing:
            # It was changed twice since the listing.
            return read_policy(storage, keys, source)
        return policy if failure is None else replace(policy, days=None)
    if failure is not None:
        raise failure
    return None


def write_policy(storage: Storage, keys: KeyRing, source: str, policy: RetentionPolicy) -> None:
    """Change the policy of a source; durable on return.

    Raises:
        ObjectExists: Another process changed it at the same time.
    """
    numbers = _numbers(storage, source)
    write_document(storage, keys, _name(source, max(numbers, default=0) + 1), Kind.POLICY, policy)
    outdated = numbers[: max(0, len(numbers) - _KEPT + 1)]
    storage.delete(*(_name(source, number) for number in outdated))
