"""``perdure exchange``."""

from __future__ import annotations

from dataclasses import replace

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.session import Session
from perdure.cli.wording import table
from perdure.model.moments import moment_text
from perdure.model.truncation import TruncationEvent, TruncationLedger

__all__ = ["truncation"]

_SHOWN = 20


def truncation(name: str, /, *, take_over: bool = False, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show a database's truncation ledger: which log the engine may delete, what it deleted, and what blocks the rest.

    perdure deletes no log. It tells the engine which is durable in the pool, and the engine decides.

    For example:

        perdure exchange truncation mailboxes
        perdure exchange truncation mailboxes --take-over

    Args:
        name: The data source.
        take_over: Make full backups again although another product made one; that product must not truncate any more.
    """
    with Session(common) as session:
        known = session.home.find_source(name)
        ledger = session.home.ledger(known.id)
        if take_over:
            ledger = replace(ledger, own_full=ledger.foreign_full or ledger.own_full, foreign_full="")
            session.home.save_ledger(known.id, ledger)
    if common.json:
        print_json({"source": known.name, **plain(ledger), "truncated": ledger.truncated or None})
    else:
        print_lines(_lines(known.name, ledger))
    return 0


def _lines(name: str, ledger: TruncationLedger) -> list[str]:
    lines = [
        f"Log of {name!r}, by generation:",
        f"  durable in the pool up to   {_generation(ledger.durable)}",
        f"  may be truncated up to      {_generation(ledger.allowed)}",
        f"  truncated up to             {_generation(ledger.truncated)}",
    ]
    lines += [f"  blocked: {blocker}" for blocker in ledger.blockers]
    if ledger.foreign_full:
        lines.append(f"  blocked: another product made a full backup ({ledger.foreign_full}); see --take-over")
    if ledger.events:
        lines += [
            "",
            *table(("WHEN", "BACKUP", "DURABLE", "TRUNCATED", ""), [_cells(e) for e in reversed(_last(ledger))]),
        ]
    return lines


def _last(ledger: TruncationLedger) -> tuple[TruncationEvent, ...]:
    return ledger.events[-_SHOWN:]


def _cells(event: TruncationEvent) -> tuple[str, ...]:
    gone = event.truncated
    return (
        moment_text(event.time_ns),
        event.kind,
        _generation(event.durable),
        f"{gone[0]:X}-{gone[1]:X}" if gone is not None else "",
        "; ".join(event.blockers),
    )


def _generation(number: int) -> str:
    return f"{number:X}" if number else "none"
