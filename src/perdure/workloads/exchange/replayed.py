"""Restored databases brought to a clean shutdown by perdure's own replay: a proof, and a preview without Exchange."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from perdure.ese.errors import EseDamaged, EseUnsupported
from perdure.ese.findings import damage_in
from perdure.ese.headers.kinds import FileKind, kind_by_name
from perdure.ese.replay.replaying import ReplayReport, replay
from perdure.model.drills import DrillStep
from perdure.model.errors import Damaged
from perdure.workloads.exchange.folders import read_header
from perdure.workloads.exchange.inspecting import verify_restored
from perdure.workloads.exchange.restoring import name_current_log

__all__ = ["drill_steps", "readable_copy", "replay_in_folder"]

_REPLAYED = ".perdure-replayed.edb"
_LABEL = (
    "it was not replayed by Exchange, which has never been shown a database of perdure's replay: use it to look things "
    "up; to bring a mailbox database back into service recover image and logs without --clean"
)


def replay_in_folder(database: Path) -> tuple[str, ...]:
    """Replay a restored database and put the result in its place, without logs; returns what a person should know.

    Args:
        database: The restored ``.edb``; its logs lie beside it.

    Raises:
        Damaged: Image and logs do not fit together, or the result does not verify.
    """
    report = _replayed(database)
    wrong = damage_in(report.findings)
    if wrong:
        raise Damaged(
            f"{database.name} was replayed, and the result does not verify: {wrong[0]}", code="verification-failed"
        )
    report.output.replace(database)
    for path in _logs_beside(database):
        path.unlink()
    taken_back = f", {len(report.open_transactions)} open transactions taken back" if report.open_transactions else ""
    done = f"{database.name} was replayed to clean shutdown by perdure{taken_back}: every page, tree and row verified"
    return (done, _LABEL)


def readable_copy(database: Path) -> Path:
    """A consistent database to look into: the restored one if it is clean, else its replay, a file beside it.

    Raises:
        Damaged: Image and logs do not fit together.
    """
    if read_header(database).clean and not _logs_beside(database):
        return database
    name_current_log(database.parent)
    return _replayed(database).output


def drill_steps(database: Path) -> Iterator[DrillStep]:
    """The steps of a drill of a restored database; none follows one without which the database is of no use."""
    began = time.monotonic()
    verdict = verify_restored(database, thorough=False)
    yield DrillStep(verdict.means, verdict.passed, time.monotonic() - began, verdict.details)
    began = time.monotonic()
    try:
        report = _replayed(database)
    except (EseDamaged, EseUnsupported) as error:
        seconds = time.monotonic() - began
        yield DrillStep("replay", passed=False, seconds=seconds, details=(error.message,), recovers=True)
        return
    yield DrillStep("replay to clean shutdown", passed=True, seconds=time.monotonic() - began, recovers=True)
    wrong = tuple(str(finding) for finding in damage_in(report.findings))
    yield DrillStep("pages, trees, rows, and the catalog against its shadow", not wrong, 0.0, wrong)


def _replayed(database: Path) -> ReplayReport:
    output = database.with_name(_REPLAYED)
    output.unlink(missing_ok=True)
    return replay(_logs_beside(database), output, database=database)


def _logs_beside(database: Path) -> list[Path]:
    return sorted(path for path in database.parent.iterdir() if kind_by_name(path.name) is FileKind.LOG)
