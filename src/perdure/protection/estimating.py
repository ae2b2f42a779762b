"""How long an engine will replay log after a recovery, judged by what drills of the source measured."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.model.drills import Drill, DrillStep
from perdure.model.moments import moment_text
from perdure.model.points import RecoveryPoint
from perdure.protection.points import TimelineRow
from perdure.protection.protected import Protected
from perdure.workloads.recovery_contract import ReplayingWorkload

__all__ = ["ReplayEstimate", "replay_estimate"]

ENOUGH = 64 << 20
"""A replay of fewer bytes says nothing about a rate: a file of the log that was ended early is mostly zeros."""

_DRILLS = 3
"""The newest so many drills count: data and machine change."""


@dataclass(frozen=True, slots=True)
class ReplayEstimate:
    """What replay times are estimated by.

    Args:
        rate: Bytes of log a second.
        basis: Where that comes from, for people.
        points: The source's images by number.
        workload: Its kind.
    """

    rate: float
    basis: str
    points: dict[int, RecoveryPoint]
    workload: ReplayingWorkload

    def seconds(self, row: TimelineRow) -> float | None:
        """The replay time of a row of the timeline; ``None`` where there is none to be had."""
        number = row.number if row.stands_on is None else row.stands_on
        point = self.points.get(number or 0)
        if point is None or row.position is None:
            return None
        return self.workload.replayed_bytes(point, row.position) / self.rate


def replay_estimate(p: Protected, *, enough: int = ENOUGH) -> ReplayEstimate | None:
    """The estimate for a source; ``None`` if its engine replays nothing.

    Args:
        p: The source.
        enough: Drills that replayed fewer bytes do not count.
    """
    if not isinstance(p.workload, ReplayingWorkload):
        return None
    points = {point.number: point for point in p.vault.points(p.source.id)}
    measured = [(drill, step) for drill in p.vault.drills(p.source.id) if (step := _replay(drill, enough)) is not None]
    newest = measured[-_DRILLS:]
    if not newest:
        rate = float(p.workload.assumed_replay_rate)
        basis = f"assumed: no drill of this source has replayed {enough >> 20} MiB of log yet"
        return ReplayEstimate(rate, basis, points, p.workload)
    rate = sum(step.bytes for _, step in newest) / max(sum(step.seconds for _, step in newest), 1e-3)
    last = moment_text(newest[-1][0].began_ns)
    drills = "the drill" if len(newest) == 1 else f"{len(newest)} drills, the last"
    return ReplayEstimate(rate, f"as measured by {drills} of {last}", points, p.workload)


def _replay(drill: Drill, enough: int) -> DrillStep | None:
    return next((step for step in drill.steps if step.name == "replay" and step.bytes >= enough), None)
