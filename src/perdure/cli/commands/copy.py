"""``perdure copy``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.point_names import parse_point
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import count, duration, rate, size
from perdure.model.errors import NotFound, Partial, PoolUnusable

if TYPE_CHECKING:
    from perdure.repository.copying import CopyReport, Wanted
    from perdure.repository.copying_report import SourceCopy
    from perdure.repository.pool import Pool

__all__ = ["copy"]


def copy(
    pool: str,
    to: str,
    /,
    *names: Annotated[str, Parameter(metavar="NAME")],
    points: Annotated[tuple[str, ...], Parameter(metavar="NAME#NUMBER", consume_multiple=True)] = (),
    to_passphrase_file: Path | None = None,
    verify: Literal["arrival", "none"] = "arrival",
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Bring a second pool up to what a pool holds.

    Only what the second pool lacks is read, encrypted with the keys of the second pool, and written. Recovery points
    keep their numbers, so that the second pool can stand in for the first. It has its own retention policy: what the
    first pool has pruned stays in the second one until it is pruned there, and what the policy of the second one would
    not keep is not copied. A run that was interrupted is continued by the same command.

    It exits with status 8 when something could not be copied; everything else was.

    For example:

        perdure copy /mnt/backup/pool /mnt/offsite/pool
        perdure copy /mnt/backup/pool /mnt/offsite/pool app --to-passphrase-file /root/offsite-passphrase
        perdure copy /mnt/backup/pool /mnt/archive/pool --points app#12 share#40

    Args:
        pool: The path of the pool to copy from.
        to: The path of the pool to copy into; make it with perdure pool create.
        names: The data sources; without any and without --points all.
        points: Copy only these recovery points, without log and whatever the policy says; several may follow.
        to_passphrase_file: Read the passphrase or recovery key of the pool to copy into from the first line of this
            file; without it both pools have the same.
        verify: Whether everything is read back from the second pool and checked before a recovery point names it
            (arrival unless given). none saves the reading where it costs money.
    """
    chosen: list[tuple[str, int | None]] = [(name, None) for name in names]
    chosen += [parse_point(text) for text in points]
    with Session(common) as session:
        origin = session.pool_at(pool)
        target = _opened_target(session, to, to_passphrase_file)

        from perdure.repository.copying import CopyOptions, copy_pool

        wanted = _wanted(origin, chosen)
        with progress_bar(common) as progress:
            options = CopyOptions(verify=verify == "arrival", progress=progress)
            report = copy_pool(origin, target, wanted, options)
        where = {"from": origin.storage.url, "to": target.storage.url}
    if common.json:
        print_json({**where, **_document(report)})
    else:
        print_lines([*(line for each in report.sources for line in _lines(each)), *_summary(report, where["to"])])
    return 0 if report.complete else Partial.exit_status


def _opened_target(session: Session, to: str, passphrase_file: Path | None) -> Pool:
    # It is not remembered: this machine does not protect anything in it.
    try:
        return session.pool_at(to, passphrase_file=passphrase_file, remember=False)
    except PoolUnusable as error:
        if error.code != "wrong-passphrase" or passphrase_file is not None:
            raise
        hint = f"if {to} has a passphrase of its own, name the file that holds it with --to-passphrase-file"
        raise PoolUnusable(error.message, code=error.code, hint=hint) from error


def _wanted(origin: Pool, chosen: list[tuple[str, int | None]]) -> list[Wanted]:
    """The sources and numbers that were named, or all sources."""
    from perdure.repository.copying import Wanted

    sources = {source.name: source for source in origin.sources()}
    numbers: dict[str, set[int] | None] = {} if chosen else dict.fromkeys(sources)
    for name, number in chosen:
        if name not in sources:
            close = difflib.get_close_matches(name, sources, n=3, cutoff=0.5)
            raise NotFound(
                f"the storage pool {origin.storage.url} has no data source called {name!r}",
                code="source-not-found",
                hint=f"it has: {', '.join(close or sources) or 'nothing'}",
            )
        so_far = numbers.setdefault(name, set())
        numbers[name] = None if number is None or so_far is None else {*so_far, number}
    return [Wanted(sources[name], None if some is None else frozenset(some)) for name, some in numbers.items()]


def _document(report: CopyReport) -> dict[str, Any]:
    return {
        "complete": report.complete,
        "seconds": report.seconds,
        "shipped": report.shipped,
        "skipped": report.skipped,
        "sources": [plain(each) for each in report.sources],
    }


def _lines(done: SourceCopy) -> list[str]:
    parts = [count(len(done.copied), "recovery point") + " copied"]
    if done.log_segments:
        parts.append(f"{count(done.log_segments, 'log segment')} ({size(done.log_bytes)})")
    if done.present:
        parts.append(f"{done.present:,} there already")
    if done.left_out:
        parts.append(f"{len(done.left_out):,} left out, since the retention policy there would not keep them")
    return [
        f"{done.source.name}: {', '.join(parts)}.",
        *(f"  {note}" for note in done.notes),
        *(f"  NOT COPIED: {failure.what}: {failure.message}" for failure in done.failures),
    ]


def _summary(report: CopyReport, where: str) -> list[str]:
    speed = rate(report.shipped, report.seconds)
    written = f"{size(report.shipped)} written to {where} in {duration(report.seconds)} ({speed})"
    lines = [f"{written}; {size(report.skipped)} lay there already."]
    if not report.complete:
        lines.append("Everything else was copied. Look at what was not with: perdure verify")
    return lines
