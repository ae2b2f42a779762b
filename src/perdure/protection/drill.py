"""The drill: recover a moment to a scratch place, put it to use there, look at it, and keep the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from perdure.model.drills import Drill, DrillStep
from perdure.model.errors import BadInput, Damaged
from perdure.model.targets import Target
from perdure.protection.item_recovery import scratch_parent
from perdure.protection.planning import plan_for
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.protection.room import refuse_without_room
from perdure.protection.scratch import scratch_directory
from perdure.workloads.contract import DrilledWorkload, FolderWorkload, ImageWorkload

__all__ = ["drill"]


def drill(
    p: Protected,
    *,
    to: Target,
    checks: Sequence[str] = (),
    scratch: Path | None = None,
    progress: Progress = quiet,
) -> Drill:
    """Recover a target to a scratch directory, check it there by the engine's own means, and keep the verdict.

    A failed recovery is a verdict too, and is kept; what makes the drill itself impossible is raised.

    Args:
        p: The source.
        to: What to recover.
        checks: The user's own checks, in the workload's language (SQL for databases).
        scratch: Directory for the temporary copy; perdure's cache unless given.
        progress: Told of the bytes.

    Raises:
        NotFound, Refused, BadInput: As :meth:`perdure.model.timeline.Timeline.resolve`.
        BadInput: The workload cannot run the user's checks.
        Refused: There is no room for the copy.
        PoolUnusable: The pool cannot be read at all, or does not take the verdict.
    """
    if checks and not isinstance(p.workload, DrilledWorkload):
        raise BadInput(
            f"a {p.workload.kind} source has nothing that could run checks of your own",
            code="no-checks",
            hint="run the drill without --check",
        )
    plan = plan_for(p, to)
    directory = scratch_parent(p, scratch)
    log = sum(sum(segment.block_sizes) for segment in plan.segments)
    refuse_without_room(directory, plan.point.size + log, "a drill", "name a larger file system with --scratch")
    began_ns = time.time_ns()
    with scratch_directory(directory, "drill") as place:
        copy = place / "copy"
        size, recovered = _recovered(p, to, copy, progress)
        steps = [recovered]
        if recovered.passed and not isinstance(p.workload, FolderWorkload):
            paths = p.workload.target_paths([file.name for file in plan.point.files], copy)
            steps += _checked(p.workload, paths, checks)
    verdict = Drill(p.source.id, plan.point.number, plan.upto, plan.time_ns, began_ns, size, tuple(steps))
    p.vault.keep_drill(verdict)
    return verdict


def _recovered(p: Protected, to: Target, copy: Path, progress: Progress) -> tuple[int, DrillStep]:
    """Bytes recovered, and how it went; a folder is judged while it is written."""
    began = time.monotonic()
    try:
        report = recover(p, to=to, target=copy, verify="none", progress=progress)
    except Damaged as error:
        # Any other error, such as a full scratch directory, says nothing about the point.
        seconds = time.monotonic() - began
        return 0, DrillStep("recover", passed=False, seconds=seconds, details=(error.message,), recovers=True)
    whole = report.verification is None or report.verification.passed
    details = () if report.verification is None else report.verification.details
    seconds = time.monotonic() - began
    return report.bytes, DrillStep("recover", whole, seconds, details, recovers=True, bytes=report.bytes)


def _checked(workload: ImageWorkload, paths: dict[str, Path], checks: Sequence[str]) -> Iterable[DrillStep]:
    if isinstance(workload, DrilledWorkload):
        yield from workload.drill(paths, checks)
        return
    began = time.monotonic()
    verdict = workload.verify(paths, thorough=True)
    yield DrillStep(verdict.means, verdict.passed, time.monotonic() - began, verdict.details)
