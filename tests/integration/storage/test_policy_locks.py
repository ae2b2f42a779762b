"""Locks that follow the retention policy, on a real bucket with object lock."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perdure.model.errors import Refused
from perdure.model.positions import Position
from perdure.model.replica import Replica, ReplicaState, Transition
from perdure.model.retention import RetentionPolicy
from perdure.protection.home import Home
from perdure.protection.protected import Protected
from perdure.protection.upkeep import keep_up
from perdure.repository.gc import collect_garbage
from perdure.repository.opening import create_pool
from perdure.repository.packs import pack_name
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage
from perdure.storage.object_urls import ObjectPlace
from perdure.storage.objects import ObjectStorage
from perdure.testing.object_servers import SeaweedFS
from perdure.testing.paged_engine import PagedEngine, PagedWorkload
from perdure.testing.small_images import MAIL, image_content, put_image


def locked_until(seaweedfs: SeaweedFS, key: str) -> datetime | None:
    """When the lock of an object in the bucket runs out, as the server says it."""
    return seaweedfs.client().head_object(Bucket="locked", Key=key).get("ObjectLockRetainUntilDate")


def days_left(until: datetime | None) -> float:
    """Days from now."""
    assert until is not None
    return (until - datetime.now(UTC)).total_seconds() / 86400


def protected_in(pool: Pool, root: Path) -> Protected:
    """The mail source with a replica that is in order."""
    home = Home(root / "home")
    home.save_replica(MAIL.id, Replica((Transition(ReplicaState.OK, 1, "test"),)))
    return Protected(home, pool, MAIL, PagedWorkload(PagedEngine()))


def test_locks_follow_the_policy(seaweedfs: SeaweedFS, prefix: str, tmp_path: Path) -> None:
    """Points are locked for the range when written; upkeep locks what lives longer, with every pack that it needs."""
    storage = ObjectStorage(ObjectPlace.parse(seaweedfs.url("locked", prefix, lock="governance")))
    pool, _ = create_pool(storage, b"x", tmp_path / "cache")
    pool.register(MAIL)
    pool.set_policy(MAIL.id, RetentionPolicy(days=2, monthly=12, lock=True))
    shared = os.urandom(20_000)
    put_image(pool, [shared, os.urandom(20_000)], Position(1, 1), time_ns=time.time_ns() - 40 * 86400 * 10**9)
    newest = put_image(pool, [shared, os.urandom(20_000)], Position(1, 2))

    packs = [listed.name for listed in pool.storage.list("packs")]
    for name in [*packs, f"points/{MAIL.id}/00000001", f"points/{MAIL.id}/00000002"]:
        assert 1.9 < days_left(locked_until(seaweedfs, f"{prefix}/{name}")) < 2.1

    protected = protected_in(pool, tmp_path)
    done = keep_up(protected, grace_s=0)

    assert not done.plan.retention.dropped
    left = {name: days_left(locked_until(seaweedfs, f"{prefix}/{name}")) for name in packs}
    place = pool.index.find(pool.chunk_id(shared))
    assert place is not None
    assert left[pack_name(place.pack)] == pytest.approx(12 * 31, abs=0.1)
    assert days_left(locked_until(seaweedfs, f"{prefix}/points/{MAIL.id}/00000001")) == pytest.approx(11 * 31, abs=0.1)

    assert pool.delete_points(MAIL.id, [1]) == [1]
    assert collect_garbage(pool, grace_s=0).deleted == 0
    assert len(image_content(pool, newest)) == 40_000


def test_a_policy_that_locks_is_refused_where_nothing_can_be_locked(tmp_path: Path) -> None:
    """On a local directory the wish for locks is refused, and the policy stays as it was."""
    pool, _ = create_pool(LocalStorage(tmp_path / "pool", create=True), b"x", tmp_path / "cache")

    with pytest.raises(Refused) as caught:
        pool.set_policy(MAIL.id, RetentionPolicy(days=2, lock=True))

    assert caught.value.code == "no-immutability"
    assert pool.policy(MAIL.id) == RetentionPolicy()
