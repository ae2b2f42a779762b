"""Drills of a cluster: what passes, what is found, and what the time of a replay is estimated by."""

from __future__ import annotations

import pytest
from shop import Shop

from perdure.cli.app import run
from perdure.protection.drill import drill
from perdure.protection.estimating import replay_estimate
from perdure.protection.points import timeline_rows
from perdure.protection.status import status


def test_a_drill_proves_a_moment_and_measures_its_replay(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any drill the replay rate is assumed and said to be; after one it is the measured one, shown in points."""
    assumed = replay_estimate(shop.protected)
    assert assumed is not None
    assert assumed.basis.startswith("assumed")
    checks = ["shop: SELECT count(*) = 21000 FROM orders", "SELECT 0", "SELECT nonsense", "SELECT 1 WHERE false"]
    verdict = drill(shop.protected, to=shop.at(shop.end), checks=checks, scratch=shop.scratch())
    steps = {step.name: step for step in verdict.steps}
    assert list(steps) == ["recover", "pg_verifybackup", "start", "replay", "pg_amcheck", *checks]
    assert {name for name, step in steps.items() if not step.passed} == {"SELECT 0", "SELECT nonsense", checks[3]}
    assert steps["SELECT 0"].details == ("it gave 0",)
    assert "does not exist" in steps["SELECT nonsense"].details[0]
    assert steps[checks[3]].details == ("it gave no row",)
    assert verdict.recovery_seconds == sum(steps[name].seconds for name in ("recover", "start", "replay"))
    rows = timeline_rows(shop.pool, shop.protected.source.id)
    image = next(row for row in rows if row.number == verdict.number)
    assert image.drill == verdict
    (seen,) = status(shop.home, lambda _: shop.pool)
    assert seen.drill == verdict
    estimate = replay_estimate(shop.protected, enough=1)
    assert estimate is not None
    assert estimate.basis.startswith("as measured by the drill of")
    assert estimate.rate == steps["replay"].bytes / steps["replay"].seconds
    last = next(row for row in rows if row.position == shop.end)
    seconds = estimate.seconds(last)
    assert seconds is not None
    assert steps["replay"].seconds / 2 < seconds < steps["replay"].seconds * 2
    assert not list(shop.scratch().iterdir())
    words = ["--pool", str(shop.room / "pool"), "--passphrase-file", str(shop.key)]
    assert run(["points", "main", *words]) == 0
    shown = capsys.readouterr().out
    assert "REPLAY is an estimate" in shown
    assert "FAILED DRILL of #1" in shown
    assert "SELECT 0: it gave 0" in shown
