"""``perdure drill``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from perdure.cli.documents import drill_document
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import duration, size, table
from perdure.model.errors import Damaged
from perdure.model.moments import moment_text
from perdure.model.targets import parse_target

if TYPE_CHECKING:
    from perdure.model.drills import Drill

__all__ = ["drill"]


def drill(
    name: str,
    /,
    *,
    to: str = "latest",
    check: Annotated[tuple[str, ...], Parameter(metavar="SQL")] = (),
    scratch: Path | None = None,
    pool: str | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Prove that a moment comes back: recover it to a scratch copy, check that with the engine, time it.

    The scratch copy is deleted afterwards. The verdict stays in the pool with its recovery point, where points and
    status show it. The exit status is 0 only if every step passed.

    For example:

        perdure drill app
        perdure drill app --to '#12' --check 'SELECT count(*) > 0 FROM orders'

    Args:
        name: The data source.
        to: The moment to recover, as for recover (latest unless given).
        check: A statement that the recovered database must answer with a true value; may be given several times. For
            PostgreSQL 'DATABASE: STATEMENT' asks another database than postgres.
        scratch: The directory for the scratch copy (perdure's cache unless given).
        pool: Recover from the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    from perdure.protection.drill import drill as carry_out

    moment = parse_target(to, time.time_ns())
    with Session(common) as session:
        protected = session.protected(name, pool)
        with progress_bar(common) as progress:
            verdict = carry_out(
                protected,
                to=moment,
                checks=check,
                scratch=None if scratch is None else scratch.absolute(),
                progress=progress,
            )
    if common.json:
        print_json({"source": protected.source.name, **drill_document(verdict)})
    else:
        print_lines(_lines(name, verdict))
    return 0 if verdict.passed else Damaged.exit_status


def _lines(name: str, verdict: Drill) -> list[str]:
    position = "" if verdict.position is None else f", position {verdict.position}"
    moment = f"{moment_text(verdict.time_ns)}{position}"
    rows = [
        (step.name, "passed" if step.passed else "FAILED", duration(step.seconds), "; ".join(step.details[:3]))
        for step in verdict.steps
    ]
    outcome = (
        f"PASSED: {name!r} comes back in {duration(verdict.recovery_seconds)} ({size(verdict.size)})."
        if verdict.passed
        else f"FAILED: {verdict.failure}"
    )
    head = f"Drill of {name!r} as it was at {moment}, from recovery point #{verdict.number}:"
    return [head, *table(("STEP", "", "TIME", ""), rows, right=(2,)), outcome]
