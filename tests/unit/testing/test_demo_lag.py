from __future__ import annotations

import pytest

from perdure.model.positions import Position
from perdure.testing.demo.answers import Place, Shipment
from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.lag import Anchor, Line, measure
from perdure.testing.mailstore import Commit, Ledger

MS = 1_000_000
PLACES = [Place(Position(3, place), 0) for place in (10, 25, 31)] + [Place(Position(4, 7), 0)]


def line() -> Line:
    """Four commits, of which the second is number 101."""
    return Line(PLACES, Anchor(Position(3, 25), 101))


def ledger(returned: dict[int, int | None]) -> Ledger:
    last = max(returned)
    commits = [Commit(n, "w", n, returned.get(n, n), ()) for n in range(1, last + 1)]
    return Ledger(commits, last)


def test_positions_and_numbers_run_side_by_side() -> None:
    """One recovered copy gives every position its commit, also across generations."""
    assert [n for n, _ in line().numbered()] == [100, 101, 102, 103]
    assert line().n_of(Position(4, 7)) == 103


def test_a_copy_beside_the_line_is_an_error() -> None:
    """A commit that is missing from or added to the timeline shows as a copy that does not fit."""
    line().must_pass_through([Anchor(Position(3, 10), 100), Anchor(Position(4, 7), 103)])

    with pytest.raises(DemoFailed, match="commit 103"):
        line().must_pass_through([Anchor(Position(4, 7), 104)])


def test_a_position_that_is_not_listed_is_an_error() -> None:
    """A recovery to a place that the timeline does not know cannot be joined with the ledger."""
    with pytest.raises(DemoFailed, match="3:26"):
        line().n_of(Position(3, 26))


def test_lag_runs_from_commit_returned_to_the_shipment_that_holds_it() -> None:
    """Every commit counts until the first shipment that reaches its position was durable."""
    returned: dict[int, int | None] = {100: 1000 * MS, 101: 1010 * MS, 102: 1020 * MS, 103: 1030 * MS}
    shipments = [Shipment(Position(3, 25), 1100 * MS), Shipment(Position(4, 7), 1050 * MS)]
    lag = measure(line(), ledger(returned), shipments, 0)

    assert (lag.commits, lag.p50, lag.p99, lag.max) == (4, 30.0, 100.0, 100.0)


def test_commits_outside_the_measurement_do_not_count() -> None:
    """Commits before the start, without a completion, or not shipped, are left out."""
    returned: dict[int, int | None] = {100: 10 * MS, 101: None, 102: 1000 * MS, 103: 1000 * MS}
    lag = measure(line(), ledger(returned), [Shipment(Position(3, 31), 1005 * MS)], 500 * MS)

    assert (lag.commits, lag.p50, lag.p99, lag.max) == (1, 5.0, 5.0, 5.0)


def test_nothing_measured_is_an_error() -> None:
    """Without a single commit there is no lag to report."""
    with pytest.raises(DemoFailed, match="no commit"):
        measure(line(), ledger({103: 1}), [], 0)
