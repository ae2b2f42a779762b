"""Log lag: from the moment that a writer's COMMIT returned to the moment that the commit was durable in the pool.

The two ends are measured by different parties. The ledger knows when COMMIT returned for commit number ``n``;
perdure knows positions. They are joined through the order that both keep: the timeline lists its commits in
position order, every commit makes exactly one position, and a recovered copy names the ``n`` that stands at a
position. So, with one recovered copy as anchor, the k-th position after it is the k-th commit after it. Every
further recovered copy must fit the same line, which proves that nothing is missing from or added to the
timeline between them. A commit is durable when the first shipment that reaches its position is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perdure.model.positions import Position
from perdure.testing.demo.answers import Place, Shipment
from perdure.testing.demo.failing import DemoFailed
from perdure.testing.mailstore import Ledger

__all__ = ["Anchor", "Lag", "Line", "measure"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A recovered copy: the position that was recovered, and the ``n`` that stood in it."""

    position: Position
    n: int


@dataclass(frozen=True, slots=True)
class Lag:
    """Milliseconds from COMMIT to durable.

    Args:
        commits: How many were measured.
        p50: Half of them were durable within this.
        p99: 99 of 100 were.
        max: All were.
    """

    commits: int
    p50: float
    p99: float
    max: float


class Line:
    """Positions and ledger numbers, side by side.

    Args:
        places: The timeline's commits in position order, without a gap from the anchor on.
        anchor: One recovered copy.
    """

    def __init__(self, places: Sequence[Place], anchor: Anchor) -> None:
        self._places = list(places)
        self._positions = [place.position for place in places]
        self._offset = anchor.n - self._row(anchor.position)

    def n_of(self, position: Position) -> int:
        """The ledger number of the commit at a position."""
        return self._row(position) + self._offset

    def must_pass_through(self, anchors: Iterable[Anchor]) -> None:
        """Check that every recovered copy holds the commit that the line says.

        Raises:
            DemoFailed: One does not.
        """
        for anchor in anchors:
            if self.n_of(anchor.position) != anchor.n:
                raise DemoFailed(
                    f"position {anchor.position} should be commit {self.n_of(anchor.position)} by the order of the "
                    f"timeline, but the copy recovered there holds commit {anchor.n}"
                )

    def numbered(self) -> list[tuple[int, Place]]:
        """Every commit of the timeline with its ledger number."""
        return [(row + self._offset, place) for row, place in enumerate(self._places)]

    def _row(self, position: Position) -> int:
        row = bisect_left(self._positions, position)
        if row == len(self._positions) or self._positions[row] != position:
            raise DemoFailed(f"position {position} was recovered, but the timeline does not list it")
        return row


def measure(
    line: Line, ledger: Ledger, shipments: Sequence[Shipment], since_ns: int, until_ns: int | None = None
) -> Lag:
    """The lag of every commit that returned from ``since_ns`` on, until ``until_ns``, and was shipped.

    Raises:
        DemoFailed: There are none.
    """
    ordered = sorted(shipments, key=lambda shipment: (shipment.last, shipment.durable_ns))
    reached = [shipment.last for shipment in ordered]
    lags = []
    for n, place in line.numbered():
        row = bisect_left(reached, place.position)
        after = ledger.commit(n).after_ns if 1 <= n <= ledger.last else None
        counts = after is not None and after >= since_ns and (until_ns is None or after < until_ns)
        if counts and after is not None and row < len(ordered):
            # It can be durable before the writer is told that its COMMIT is done.
            lags.append(max(0, ordered[row].durable_ns - after) / 1e6)
    if not lags:
        raise DemoFailed("no commit could be followed from its COMMIT to the pool")
    lags.sort()
    return Lag(len(lags), _at(lags, 0.50), _at(lags, 0.99), lags[-1])


def _at(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed."""
    return ascending[max(0, -int(-share * len(ascending) // 1) - 1)]
