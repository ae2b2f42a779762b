from __future__ import annotations

from typing import Any

from perdure.model.positions import Position
from perdure.testing.demo.answers import Place, commits


def row(number: int | None, position: str, second: int, cause: str = "") -> dict[str, Any]:
    return {
        "number": number,
        "position": position,
        "time": f"1970-01-01T00:00:{second:02d}.000000007Z",
        "cause": cause,
    }


def test_commits_are_listed_once_and_in_order() -> None:
    """Overlapping pieces of log do not count a commit twice, and images are no commits."""
    rows = [row(1, "1:0", 0, "first replica"), row(None, "1:9", 2), row(None, "1:4", 1), row(None, "1:9", 2)]
    rows.append(row(2, "1:9", 3, "schedule"))

    expected = [Place(Position(1, 4), 1_000_000_007), Place(Position(1, 9), 2_000_000_007)]
    assert expected == commits({"points": rows})


def test_only_the_log_since_its_last_break_counts() -> None:
    """What lies before a loss of tracking is not joined by order to what lies after."""
    rows = [row(1, "1:0", 0, "first replica"), row(None, "1:4", 1)]
    rows += [row(2, "3:2", 2, "tracking lost: perdure was not running"), row(None, "3:2", 2), row(None, "3:5", 3)]

    assert [Position(3, 5)] == [place.position for place in commits({"points": rows})]
