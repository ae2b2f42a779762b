"""The demo's report, for a human."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from perdure.cli.wording import size
from perdure.testing.demo.answers import PointAnswer
from perdure.testing.demo.recovering import RESOLUTION_NS
from perdure.testing.demo.scene import Outcome

__all__ = ["show_report"]

_LAG_METHOD = """\
  The time of COMMIT is from the writers' ledger, the durable time from watch's
  log events. They are joined by order: the timeline's positions are the
  ledger's commits one for one, and all four recovered copies fit. The mistake
  itself is one transaction as large as the database.
"""

_BEHIND = f"""\
  behind: transactions whose COMMIT had returned by then, but that perdure had
  not seen yet (SQLite's log carries no times). More than {RESOLUTION_NS / 1e9:.0f} s behind would have
  failed the demo.
"""


def show_report(outcome: Outcome, console: Console) -> None:
    """Print what was protected, how fast, and what was verified."""
    console.print()
    console.rule("Report")
    console.print(_protection(outcome))
    console.print(_express_fulls(outcome.fulls))
    console.print(_causes(outcome.fulls), style="dim", highlight=False)
    console.print(_lag(outcome))
    console.print(_LAG_METHOD, style="dim", highlight=False)
    console.print(_recoveries(outcome))
    console.print(_BEHIND, style="dim", highlight=False)
    console.print(_verified(outcome), highlight=False)


def _protection(outcome: Outcome) -> Table:
    first, rate = outcome.first, outcome.first.size / outcome.first_seconds
    table = Table(title="Protection", show_header=False, title_justify="left")
    table.add_row("Protected", f"{size(first.size)} in a live SQLite database under {outcome.plan.writers} writers")
    table.add_row("First copy", f"{outcome.first_seconds:.1f} s for the whole command, {size(rate)}/s")
    table.add_row("  stored", f"{size(first.stored)} ({first.stored / first.size:.0%} of its size)")
    table.add_row("Transactions", f"{outcome.ledger.last:,} by the writers' ledger")
    table.add_row("Recoverable", f"{outcome.commits_logged:,} of them singly, since the last break of the log")
    table.add_row("Pool at the end", size(outcome.pool_size))
    return table


def _express_fulls(fulls: list[PointAnswer]) -> Table:
    table = Table(title="Express fulls, made by watch", title_justify="left")
    for title in ("point", "changed", "stored", "ratio", "read", "seconds"):
        table.add_column(title, justify="right")
    table.add_column("cause")
    for full in fulls:
        cause = full.cause.partition(":")[0]
        share = f"{full.stored / full.changed:.2f}" if full.changed else "-"
        sizes = (size(full.changed), size(full.stored), share, size(full.read))
        table.add_row(f"#{full.number}", *sizes, f"{full.seconds:.2f}", cause)
    return table


def _causes(fulls: list[PointAnswer]) -> str:
    return "\n".join(f"  #{full.number}: {full.cause}" for full in fulls if ":" in full.cause)


def _lag(outcome: Outcome) -> Table:
    table = Table(title="Log lag, from COMMIT returned to durable in the pool", title_justify="left")
    table.add_column("")
    for title in ("transactions", "p50", "p99", "max"):
        table.add_column(title, justify="right")
    for when, lag in (("under load", outcome.lag_under_load), ("mistake included", outcome.lag)):
        table.add_row(when, f"{lag.commits:,}", f"{lag.p50:.0f} ms", f"{lag.p99:.0f} ms", f"{lag.max:.0f} ms")
    return table


def _recoveries(outcome: Outcome) -> Table:
    table = Table(title="Recoveries, each to a new file", title_justify="left")
    table.add_column("what")
    table.add_column("to")
    for title in ("commit", "behind", "size", "seconds", "rows"):
        table.add_column(title, justify="right")
    for copy in outcome.recovered:
        behind = f"{copy.missed}" if copy.wanted.time_ns is not None else "-"
        what = (copy.wanted.title, copy.wanted.shown, f"{copy.anchor.n:,}", behind, size(copy.size))
        table.add_row(*what, f"{copy.seconds:.1f}", f"{copy.rows:,}")
    return table


def _verified(outcome: Outcome) -> str:
    checked = outcome.verified
    return f"""
[bold green]Verified[/bold green]
  Every recovered copy: PRAGMA integrity_check, and every row of every table
  against the ledger, bodies hashed.
  The moment before the mistake is exactly the commit before it. No copy shows
  anything from after its moment.
  The pool: {checked["objects"]:,} objects and {checked["chunks"]:,} chunks re-read, decrypted and
  hashed, no damage.
  Random moments from seed {outcome.plan.seed}. The demo took {outcome.seconds:.0f} s."""
