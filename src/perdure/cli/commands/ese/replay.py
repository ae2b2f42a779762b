"""``perdure ese replay``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.wording import count

if TYPE_CHECKING:
    from perdure.ese.replay.replaying import ReplayReport

__all__ = ["replay"]


def replay(
    logdir: Path,
    /,
    *more: Path,
    output: Path,
    database: Path | None = None,
    to: str = "",
    name: str = "",
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Make a consistent database from an image and its logs, without the engine.

    The image may be dirty, as every snapshot of a running store is. What the logs hold and the image lacks is redone,
    what unfinished transactions changed is taken back, and the result is marked as shut down cleanly and verified:
    every page, every tree, every row. Neither image nor logs are written to. Without an image, a stream that begins
    with the creation of the database is built from nothing.

    It exits with status 0 only if everything fits together and everything was verified.

    For example:

        perdure ese replay /restore/logs --database /restore/mailbox.edb --output /scratch/mailbox.edb
        perdure ese replay /restore/logs --database /restore/mailbox.edb --to 1A2B --output /scratch/mailbox.edb
        perdure ese replay /restore/logs --database /restore/mailbox.edb --to 2024-05-06T07:08 --output /scratch/m.edb

    Args:
        logdir: The folder of the logs, or a log file.
        more: More of them.
        output: The new database; it must not exist.
        database: The image. Without it, the database is built from nothing.
        to: Where to end: a generation (1A, which counts whole), a position in it (1A:30 or 1A:30:5C, which does not
            count itself), all hexadecimal, or a time (UTC if it names no zone). Without it, at the end of the logs.
        name: Which database to build from nothing, by the end of its path, where the logs make several.
    """
    from perdure.cli.commands.ese.documents import exit_status, finding_lines, readable
    from perdure.ese.findings import worst_of
    from perdure.ese.replay.replaying import replay as replay_logs
    from perdure.ese.replay.stops import END_OF_LOGS, parse_stop

    stop = parse_stop(to) if to else END_OF_LOGS
    paths = (logdir, *more)
    named = paths if database is None else (*paths, database)
    with readable(*named), progress_bar(common) as report_progress:
        report = replay_logs(paths, output, database=database, stop=stop, name=name, progress=report_progress)
    worst = worst_of(report.findings)
    if common.json:
        print_json(_document(report) | {"verdict": worst.value if report.findings else "sound"})
    else:
        print_lines(_lines(report))
        print_lines(finding_lines(report.findings))
    return exit_status(worst)


def _document(report: ReplayReport) -> dict[str, Any]:
    from perdure.cli.commands.ese.documents import document

    found: dict[str, Any] = document(report)
    return found | {"time": report.time.isoformat() if report.time is not None else None}


def _lines(report: ReplayReport) -> Iterator[str]:
    made = "built from nothing" if report.from_nothing else "brought forward"
    at = f", {report.time:%Y-%m-%d %H:%M:%S} UTC" if report.time is not None else ""
    yield f"{report.output}: {made} to {report.position}{at}; clean shutdown, {count(report.pages, 'page')}."
    if report.generations is None:
        yield "The image was clean and no log goes beyond it."
    else:
        first, last = report.generations
        held = f", {report.skipped:,} of them in the image already" if report.skipped else ""
        changes = count(report.changed + report.skipped, "change")
        yield f"Logs {first:X}-{last:X}: {count(report.records, 'record')}, {changes} of pages{held}."
    for transaction in report.open_transactions:
        yield (
            f"Taken back: {count(transaction.changes, 'change')} of the transaction that session "
            f"{transaction.process:#x} began at {transaction.begun} and had not ended."
        )
    for page in report.corrected:
        yield f"Note: page {page} of the image had a flipped bit, which was corrected."
