"""From a target as a person names it to the plan of a recovery."""

from __future__ import annotations

from perdure.model.errors import BadInput
from perdure.model.targets import AtPlace, AtPosition, Target
from perdure.model.timeline import RecoveryPlan
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.workloads.contract import LocatingWorkload

__all__ = ["plan_for"]


def plan_for(p: Protected, target: Target) -> RecoveryPlan:
    """Find the image and the log that lead to a target.

    Raises:
        NotFound, Refused, BadInput: As :meth:`perdure.model.timeline.Timeline.resolve`.
    """
    if isinstance(target, AtPlace):
        if not isinstance(p.workload, LocatingWorkload):
            raise BadInput(
                f"a {p.workload.kind} source has no place called {target.kind}:{target.text}",
                code="bad-target",
                hint="give a time, a position or a recovery point number",
            )
        segments = (p.vault.segment(p.source.id, span) for span in p.vault.spans(p.source.id))
        target = AtPosition(p.workload.locate(target.kind, target.text, segments))
    return timeline_of(p.vault, p.source.id).resolve(target)
