"""What the demo shows while it runs: a line for every step, and a bar for what takes time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

__all__ = ["Show"]


class Show:
    """Tells a person what is going on.

    Args:
        console: Where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = monotonic()

    def say(self, text: str, *, style: str = "") -> None:
        """One line, with the time since the start."""
        self._console.print(f"[dim]{monotonic() - self._begun:6.1f} s[/dim]  {text}", style=style, highlight=False)

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        """Something of unknown length is going on."""
        with self._bar(title, None):
            yield

    @contextmanager
    def measuring(self, title: str, size: int) -> Iterator[Callable[[int], None]]:
        """Bytes are dealt with; call what is yielded with their number."""
        with self._bar(title, size, DownloadColumn(binary_units=True)) as advance:
            yield advance

    @contextmanager
    def counting(self, title: str, seconds: float) -> Iterator[Callable[[float], None]]:
        """Time passes; call what is yielded with the seconds."""
        with self._bar(title, seconds) as advance:
            yield advance

    @contextmanager
    def _bar(self, title: str, total: float | None, *more: ProgressColumn) -> Iterator[Callable[[float], None]]:
        columns = (TextColumn("          {task.description}"), BarColumn(), *more, TimeElapsedColumn())
        begun = monotonic()
        # Where nobody looks on, a bar is noise; the line below says the same.
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(title, total=total)
            yield lambda amount: bars.update(task, advance=amount)
        self.say(f"{title} [dim]({monotonic() - begun:.1f} s)[/dim]")
