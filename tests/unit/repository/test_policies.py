"""Retention policies as they lie in the pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.model.errors import Damaged
from perdure.model.retention import RetentionPolicy
from perdure.repository.keys import Passphrase
from perdure.repository.opening import open_pool
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage
from perdure.testing.hooked_storage import HookedStorage
from perdure.testing.small_images import MAIL


def spoil(pool: Pool, number: int) -> None:
    """Damage one of the policies of the mail store."""
    path = Path(pool.storage.url) / f"policies/{MAIL.id}/{number:08d}"
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))


def test_the_last_policy_counts(pool: Pool) -> None:
    """A policy holds until the next one; a source that never had one keeps everything."""
    assert pool.policy(MAIL.id) == RetentionPolicy()
    for days in (7, 30, 365):
        pool.set_policy(MAIL.id, RetentionPolicy(days=days, weekly=3))
        assert pool.policy(MAIL.id) == RetentionPolicy(days=days, weekly=3)
    assert [listed.name[-1] for listed in pool.storage.list(f"policies/{MAIL.id}")] == ["2", "3"]


def test_a_policy_that_was_replaced_deletes_nothing_when_its_successor_is_damaged(pool: Pool) -> None:
    """Who raised the range from a week to a year does not lose the year's points to a bad sector."""
    pool.set_policy(MAIL.id, RetentionPolicy(days=7, weekly=3))
    pool.set_policy(MAIL.id, RetentionPolicy(days=365))
    spoil(pool, 2)

    assert pool.policy(MAIL.id) == RetentionPolicy(days=None, weekly=3)
    pool.set_policy(MAIL.id, RetentionPolicy(days=365))
    assert pool.policy(MAIL.id) == RetentionPolicy(days=365)


def test_when_no_policy_can_be_read_that_is_said(pool: Pool) -> None:
    """A source whose only policy is damaged does not pass for one that never had one."""
    pool.set_policy(MAIL.id, RetentionPolicy(days=7))
    spoil(pool, 1)

    with pytest.raises(Damaged):
        pool.policy(MAIL.id)


def test_a_policy_that_is_changed_while_it_is_read_is_read_again(pool: Pool, tmp_path: Path) -> None:
    """Two changes between the listing and the reading remove what was listed; the new one is found."""
    storage = HookedStorage(LocalStorage(Path(pool.storage.url)))
    other = open_pool(storage, Passphrase(b"correct horse"), tmp_path / "other")
    pool.set_policy(MAIL.id, RetentionPolicy(days=7))

    def hook(method: str, names: tuple[str, ...]) -> None:
        if method == "read" and names[0].startswith("policies/"):
            storage.hook = lambda _, __: None
            for days in (8, 9):
                pool.set_policy(MAIL.id, RetentionPolicy(days=days))

    storage.hook = hook
    assert other.policy(MAIL.id) == RetentionPolicy(days=9)
