"""The runs of a benchmark, kept as JSON lines so that a part can be run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from tools import Cost


@dataclass(frozen=True)
class Run:
    """One measured command.

    Args:
        case: What was measured.
        tool: By whom.
        round: In which round; tools take turns in every round.
        command: The command line.
        seconds: By the clock.
        cpu: CPU seconds.
        memory: Peak memory, bytes.
        figures: More numbers of this case, bytes or milliseconds.
    """

    case: str
    tool: str
    round: int
    command: str
    seconds: float
    cpu: float
    memory: int
    figures: dict[str, float] = field(default_factory=dict)


class Results:
    """All runs so far.

    Args:
        path: The JSON lines; what is in it already is read, so that cases that are not run again keep their runs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs = [Run(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def begin(self, case: str) -> None:
        """Forget the earlier runs of a case."""
        self.runs = [run for run in self.runs if run.case != case]
        self._path.write_text("".join(json.dumps(asdict(run)) + "\n" for run in self.runs))

    def add(self, case: str, tool: str, round_: int, cost: Cost, **figures: float) -> None:
        """Note a run, and show it."""
        run = Run(case, tool, round_, cost.command, cost.seconds, cost.cpu, cost.memory, figures)
        self.runs.append(run)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        more = "  ".join(f"{name} {value:,.0f}" for name, value in figures.items())
        print(f"  {case}: {tool} #{round_}: {run.seconds:.2f} s, {run.memory >> 20} MiB  {more}", flush=True)

    def of(self, case: str, tool: str) -> list[Run]:
        return [run for run in self.runs if (run.case, run.tool) == (case, tool)]

    def tools(self, case: str) -> list[str]:
        return list(dict.fromkeys(run.tool for run in self.runs if run.case == case))

    def seconds(self, case: str, tool: str) -> float | None:
        """The median, ``None`` if it was not run."""
        return self._median(case, tool, lambda run: run.seconds)

    def figure(self, case: str, tool: str, name: str) -> float | None:
        return self._median(case, tool, lambda run: run.figures[name])

    def _median(self, case: str, tool: str, value: Callable[[Run], float]) -> float | None:
        values = [value(run) for run in self.of(case, tool)]
        return median(values) if values else None
