"""What people may write after --to."""

from __future__ import annotations

import pytest

from perdure.model.errors import BadInput
from perdure.model.moments import rfc3339
from perdure.model.positions import Position
from perdure.model.targets import AtPoint, AtPosition, AtTime, Latest, Target, parse_target

NOW = 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("latest", Latest()),
        ("12", AtPoint(12)),
        ("#12", AtPoint(12)),
        ("3:1042", AtPosition(Position(3, 1042))),
        ("2023-11-14T22:13:20Z", AtTime(1_700_000_000 * 10**9)),
        ("2023-11-14 23:13:20+01:00", AtTime(1_700_000_000 * 10**9)),
        (rfc3339(NOW), AtTime(NOW)),
    ],
)
def test_targets_are_understood(text: str, target: Target) -> None:
    """Every exact form means one target."""
    assert parse_target(text, NOW) == target


def test_relative_times_count_from_now() -> None:
    """'10 minutes ago' is ten minutes before the given present."""
    target = parse_target("10 minutes ago", NOW)

    assert isinstance(target, AtTime)
    assert abs(target.time_ns - (NOW - 600 * 10**9)) < 10**6


@pytest.mark.parametrize("text", ["", "soonish", "2023-13-45", "1:2:3:4x", "1:2:3", "-5", "10:30:00", "…", "9" * 5000])
def test_nonsense_is_bad_input(text: str) -> None:
    """What is no target is refused with the forms that are."""
    with pytest.raises(BadInput):
        parse_target(text, NOW)
