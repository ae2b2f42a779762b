"""The history that the proofs interrupt: what happens to a pool in its life, in small.

To prove a new feature: add a step to :mod:`perdure.testing.pool_steps`, a reader to
:mod:`perdure.testing.pool_readers` if the feature makes something of a new kind visible, and both here.
"""

from __future__ import annotations

from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.testing.history import History
from perdure.testing.pool_readers import read_holds, read_logs, read_points, read_policies, read_sources
from perdure.testing.pool_steps import (
    MAIL,
    PAGE,
    SHARE,
    collecting,
    condemning,
    creating,
    folder,
    holding,
    image,
    joining,
    log,
    page,
    policy,
    registering,
    releasing,
    removing,
    segment,
)

__all__ = ["pool_history"]


def pool_history() -> History:
    """Images with deltas, log across generations, folders, retention, holds, and the collection of garbage."""
    first = {number: page(1, number) for number in range(12)}
    second = {**first, 3: page(2, 3), 7: bytes(PAGE), 12: page(2, 12)}
    third = {number: text for number, text in second.items() if number in (0, 1, 9)} | {4: page(3, 4)}
    fourth = {**third, 1: page(4, 1), 5: first[5]}
    logs = [
        segment(Position(1, 10), Position(1, 14), b"one"),
        segment(Position(1, 14), Position(1, 20), b"two" * 2000),
        segment(Position(1, 20), Position(2, 6), b"three"),
        segment(Position(2, 6), Position(2, 9), b"four"),
    ]
    tree = {b"a": b"alpha", b"deep/b": page(4, 0) * 2, b"deep/c": b""}
    later = {**tree, b"a": b"alpha grew", b"long": b"".join(page(5, n)[:999] for n in range(40))}
    return History(
        (
            creating(),
            registering(MAIL),
            registering(SHARE),
            image("first image", Position(1, 10), first),
            log(logs[0]),
            log(logs[1]),
            image("second image", Position(1, 20), second, before=first),
            folder("folder", tree),
            holding("second image"),
            policy(RetentionPolicy(days=10.0)),
            removing(MAIL, "first image"),
            log(logs[2]),
            joining(logs[:2]),
            image("third image", Position(2, 6), third),
            releasing("second image"),
            removing(MAIL, "second image"),
            condemning(),
            # Takes up again what was condemned, and makes a pack of it that is not.
            image("fourth image", Position(2, 6), fourth, before=third),
            folder("folder later", later),
            log(logs[3]),
            removing(SHARE, "folder"),
            collecting(),
            image("fifth image", Position(2, 9), first),
        ),
        (read_sources, read_points, read_logs, read_holds, read_policies),
    )
