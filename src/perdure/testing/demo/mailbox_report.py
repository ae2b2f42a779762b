"""The report of the second act."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from perdure.cli.wording import size
from perdure.model.moments import moment_text
from perdure.testing.demo.mailbox_act import MailboxOutcome

__all__ = ["show_mailbox_report"]


def show_mailbox_report(outcome: MailboxOutcome, console: Console) -> None:
    """Print what was protected, and by whom it was proven."""
    console.print()
    console.rule("Report: mailbox database")
    table = Table(show_header=False)
    first = outcome.first
    table.add_row("Protected", f"{size(first.size)}, mounted, {outcome.plan.rate:.0f} transactions a second")
    table.add_row("First copy", f"{outcome.first_seconds:.1f} s for the whole command, {size(first.stored)} stored")
    for full in outcome.fulls:
        changed = f"{size(full.changed)} changed, {size(full.read)} read, {size(full.stored)} stored"
        table.add_row(f"Express full #{full.number}", f"{changed}, {full.seconds:.2f} s")
    table.add_row("Log", f"{outcome.logs} generations shipped, {outcome.truncated} truncated by the engine afterwards")
    table.add_row("Recovered", f"{moment_text(outcome.wanted_ns)}: position {outcome.position}")
    table.add_row("  with replay", f"{outcome.recover_seconds:.1f} s for the whole command")
    table.add_row("Pool at the end", size(outcome.pool_size))
    console.print(table)
    console.print(_proven(outcome), highlight=False)


def _proven(outcome: MailboxOutcome) -> str:
    readers = "\n".join(f"  {one.name}: {one.rows:,} rows of {one.tables} tables." for one in outcome.readers)
    return f"""
[bold green]Verified[/bold green]
  The engine was a simulator of Exchange's; its files are in the real format.
  By perdure: {outcome.pages:,} pages, every tree, the chain of the log, and replay to a
  clean shutdown with open transactions undone.
  By the store's journal, which perdure never saw: all {outcome.rows:,} rows after
  {outcome.commits:,} transactions, bodies hashed; nothing from after the moment.
By independent readers, which share no code with perdure:
{readers}
  Seed {outcome.plan.seed}."""
