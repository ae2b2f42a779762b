"""Pruning and collecting garbage beside captures, all of them killed again and again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from perdure.testing.command_line import CommandLine
from perdure.testing.nursery import Nursery

ROUNDS = 30


def described(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_killing_captures_and_collections_at_any_moment_loses_no_point(tmp_path: Path) -> None:
    """After every kill the pool is sound, and in the end each point that was listed and not pruned is what it was."""
    # The moments of the kills differ from run to run all the same.
    rng = random.Random(17)
    (tmp_path / "passphrase").write_text("x\n")
    (tmp_path / "passphrase").chmod(0o600)
    perdure = CommandLine(tmp_path / "home", tmp_path / "passphrase")
    share = tmp_path / "share"
    share.mkdir()
    (share / "always").write_bytes(rng.randbytes(200_000))
    perdure.document("pool", "create", tmp_path / "pool")
    perdure.document("protect", f"files:{share}", "--pool", tmp_path / "pool")
    perdure.document("retention", "share", "--days", "0", "--daily", "1")
    shown = {1: described(share)}

    with Nursery(perdure.environment()) as nursery:
        for number in range(ROUNDS):
            (share / f"f{number % 5}").write_bytes(rng.randbytes(rng.randrange(100_000)))
            commands = [("sync", "share"), ("prune", "--grace", "0s"), ("gc", "--grace", "0s", "--repack-below", "0.9")]
            started = [
                nursery.start(tmp_path / "said", *rng.choice(commands)),
                nursery.start(tmp_path / "said", "sync", "share"),
            ]
            # Which moment the kill hits is what the test varies.
            time.sleep(rng.random() * 1.2)
            for pid in started:
                nursery.kill(pid)
            points = perdure.document("points", "share")["points"]
            for point in points:
                # Everything that was committed since the last look shows the folder as it is now.
                shown.setdefault(point["number"], described(share))

    perdure.document("sync", "share")
    perdure.document("prune", "--grace", "0s")
    assert perdure.document("verify", tmp_path / "pool", "--data")["sound"]
    listed = [point["number"] for point in perdure.document("points", "share")["points"]]
    assert listed[-1] > 2
    shown[listed[-1]] = described(share)
    for number in listed:
        perdure.document("recover", "share", "--to", f"#{number}", "--target", tmp_path / f"out-{number}")
        assert described(tmp_path / f"out-{number}") == shown[number]
    collections = perdure.document("gc", "--grace", "0s")["collections"]
    assert collections[0]["condemned"] == 0
