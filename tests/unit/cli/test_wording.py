"""How sizes, times and tables read."""

from __future__ import annotations

import pytest

from perdure.cli import wording
from perdure.cli.intervals import seconds_of
from perdure.model.errors import BadInput


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**6, "3072.0 PiB"),
    ],
)
def test_sizes_are_in_binary_units(octets: int, text: str) -> None:
    """A size reads with the unit that leaves one to three digits before the point."""
    assert wording.size(octets) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0034, "3 ms"),
        (0.9999, "1.0 s"),
        (59.99, "1 min"),
        (125, "2 min 5 s"),
        (3599.9, "1 h"),
        (12000, "3 h 20 min"),
        (86400 * 4 + 7300, "4 d 2 h"),
    ],
)
def test_lengths_of_time_have_at_most_two_units(seconds: float, text: str) -> None:
    """A length of time reads with the two largest units that say something."""
    assert wording.duration(seconds) == text


def test_a_table_is_aligned() -> None:
    """Columns line up, numbers to the right, and no line ends in blanks."""
    lines = wording.table(("NAME", "SIZE"), [("a", "1 B"), ("longer", "100 B")], right=[1])

    assert lines == ["NAME     SIZE", "a         1 B", "longer  100 B"]


def test_a_table_without_rows_is_its_head() -> None:
    """An empty table still shows what its columns are."""
    assert wording.table(("NAME", "SIZE"), []) == ["NAME  SIZE"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("30", 30), ("15min", 900), ("1.5h", 5400), ("1d", 86400)]
)
def test_intervals_are_read(text: str, seconds: float) -> None:
    """Lengths of time are written with their usual units."""
    assert seconds_of(text, "--ship-every") == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "soon", "-1s", "1w", "nan"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    """Zero and what is not a length of time are refused with the option's name."""
    with pytest.raises(BadInput, match="--ship-every"):
        seconds_of(text, "--ship-every")
