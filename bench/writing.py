"""The benchmark's page: targets, medians, every run, machine and versions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from copying import FOLDER
from ese import FASTEST, LOGS, PAGES, REPLAY, REPLAYED_PAGE_SIZES
from express import COMPARED, KNOWN, RECOVERY, ROW, WATCHED
from lagging import LAG
from objects import OBJECTS
from pruning import PRUNE, THREADS
from remembering import MEMORY, SIZES
from results import Results, Run
from tools import version
from verifying import CEILING, RECOVER, VERIFY

from perdure import __version__

MIB = 1 << 20
REMARKS = Path(__file__).with_name("remarks.md")
"""What people found out about the numbers: why a target was missed. Put after the targets when it exists."""

LAST = f"perdure, point {ROW + 1}"
FIRST = "perdure, first point"


@dataclass(frozen=True)
class Target:
    """One thing that must be reached.

    Args:
        work: What is measured.
        text: The target in words.
        measured: What came out, ``None`` if it was not run.
        reached: Whether that is enough.
        unit: Follows the number.
    """

    work: str
    text: str
    measured: float | None
    reached: Callable[[float], bool]
    unit: str = "x"

    def row(self) -> list[str]:
        if self.measured is None:
            return [self.work, self.text, "not run", ""]
        verdict = "reached" if self.reached(self.measured) else "**missed**"
        return [self.work, self.text, f"{self.measured:,.2f} {self.unit}", verdict]


def targets(results: Results) -> list[Target]:
    """Every target with what was measured."""

    def faster(case: str, peer: str, tool: str = "perdure", than: str | None = None) -> float | None:
        return _ratio(results.seconds(than or case, peer), results.seconds(case, tool))

    smaller = _least(results.figure(FOLDER, name, "repository") for name in ("restic", "borg zstd,3"))
    stored = _ratio(results.figure(KNOWN, "perdure", "stored"), results.figure(KNOWN, "perdure", "changed"))
    stored_in_watch = _ratio(
        results.figure(WATCHED, "perdure", "stored"), results.figure(WATCHED, "perdure", "changed")
    )
    lag = results.figure(LAG, "perdure", "p99")
    return [
        Target("first copy", "≥ 2.0x restic", faster(FOLDER, "restic"), lambda x: x >= 2.0),
        Target("", "≥ 1.3x borg zstd,3", faster(FOLDER, "borg zstd,3"), lambda x: x >= 1.3),
        Target(
            "",
            "pool ≤ 1.03x the smaller of the two",
            _ratio(results.figure(FOLDER, "perdure", "repository"), smaller),
            lambda x: x <= 1.03,
        ),
        Target("first copy to an object store", "≥ 0.6x obstore alone", faster(OBJECTS, "obstore"), lambda x: x >= 0.6),
        Target("express full, pages known", "whole command ≥ 8x restic", faster(KNOWN, "restic"), lambda x: x >= 8),
        Target("", "inside `watch` ≥ 30x restic", faster(WATCHED, "restic"), lambda x: x >= 30),
        Target("", "stored ≤ 0.7x changed, whole command", stored, lambda x: x <= 0.7),
        Target("", "stored ≤ 0.7x changed, inside `watch`", stored_in_watch, lambda x: x <= 0.7),
        Target("express full, pages unknown", "≥ 3x restic", faster(COMPARED, "restic"), lambda x: x >= 3),
        Target(
            f"recovery after {ROW} express fulls", "≥ 1.2x restic", faster(RECOVERY, "restic", LAST), lambda x: x >= 1.2
        ),
        Target("", "rate ≥ 0.8x that of the first point", faster(RECOVERY, FIRST, LAST), lambda x: x >= 0.8),
        Target(
            "log lag under 2,000 commits/s",
            "p99 ≤ 1 s",
            None if lag is None else lag / 1000,
            lambda x: x <= 1.0,
            "s",
        ),
        *(
            Target(
                "peak memory of any verb" if gib == SIZES[0] else "",
                f"≤ 400 MB on {gib} GiB",
                _peak(results, gib),
                lambda x: x <= 400,
                "MB",
            )
            for gib in SIZES
        ),
        Target("first copy, two threads", "≥ 1.6x one", faster(THREADS, "1 threads", "2 threads"), lambda x: x >= 1.6),
        Target("verify --data", "≥ 0.6x the ceiling", faster(VERIFY, CEILING), lambda x: x >= 0.6),
        Target("recover", "≥ 0.8x the ceiling", faster(RECOVER, CEILING), lambda x: x >= 0.8),
        Target(
            "prune half of 50 points",
            "≥ 0.95 of what only they used",
            _share(results, PRUNE, "reclaimed", "only_theirs"),
            lambda x: x >= 0.95,
            "of it",
        ),
        Target(
            "ESE pages of 32 KiB from memory",
            "≥ 1.5 GB/s a core",
            _gigabytes(results.figure(PAGES.format(FASTEST), "perdure", "per_second")),
            lambda x: x >= 1.5,
            "GB/s",
        ),
        Target(
            "ESE logs read, verified and parsed",
            "≥ 0.25 GB/s a core",
            _gigabytes(results.figure(LOGS, "perdure", "per_second")),
            lambda x: x >= 0.25,
            "GB/s",
        ),
        *(
            Target(
                f"ESE log replayed, {kib} KiB pages",
                "≥ 20 MB/s a core",
                _megabytes(results.figure(REPLAY.format(kib), "perdure", "per_second")),
                lambda x: x >= 20,
                "MB/s",
            )
            for kib in REPLAYED_PAGE_SIZES
        ),
    ]


def _share(results: Results, case: str, part: str, whole: str) -> float | None:
    return _ratio(results.figure(case, "perdure", part), results.figure(case, "perdure", whole))


def _gigabytes(octets: float | None) -> float | None:
    return None if octets is None else octets / 1e9


def _megabytes(octets: float | None) -> float | None:
    return None if octets is None else octets / 1e6


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _least(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known, default=None)


def _peak(results: Results, gib: int) -> float | None:
    peaks = [run.memory / 1e6 for run in results.runs if run.case == MEMORY.format(gib)]
    return max(peaks, default=None)


def page(results: Results, *, scale: float, rounds: int, date: str) -> str:
    """The whole page as markdown."""
    parts = [_head(scale, rounds, date), "## Targets", "", *_table(_TARGET_HEAD, [t.row() for t in targets(results)])]
    missed = [t for t in targets(results) if t.measured is not None and not t.reached(t.measured)]
    parts += ["", f"{len(missed)} missed." if missed else "None missed.", ""]
    if REMARKS.exists():
        parts += [REMARKS.read_text().strip(), ""]
    parts += ["## Medians", ""]
    cases = list(dict.fromkeys(run.case for run in results.runs))
    parts += _table(_MEDIAN_HEAD, [row for case in cases for row in _medians(results, case)])
    parts += ["", "## Every run, in order", "", "No run was left out.", ""]
    parts += _table(_RUN_HEAD, [_run(run) for run in results.runs])
    parts += [
        "",
        "## Commands",
        "",
        "As in the first round; `PERDURE_HOME` and passphrases are in the environment.",
        "",
    ]
    firsts = {(run.case, run.tool): run.command for run in reversed(results.runs)}
    parts += [
        f"* {case}, {tool.rstrip(':')}: `{_short(command)}`" for (case, tool), command in reversed(firsts.items())
    ]
    return "\n".join(parts) + "\n"


_TARGET_HEAD = ("work", "must reach", "measured", "")
_MEDIAN_HEAD = ("case", "tool", "runs", "seconds", "CPU s", "memory MB", "figures")
_RUN_HEAD = ("case", "tool", "round", "seconds", "CPU s", "memory MB", "figures")


def _head(scale: float, rounds: int, date: str) -> str:
    note = "" if scale == 1 else f"\n**Sizes were scaled by {scale}: the targets do not apply to these numbers.**\n"
    return f"""# Benchmarks

Written by `make bench` (`bench/run.py`) on {date}.
{note}
| | |
|---|---|
| perdure | {__version__}, Python {platform.python_version()} |
| restic | {version("restic", "version")} (Debian), compression `auto` |
| borg | {version("borg", "--version")} (Debian), `repokey-blake2`, zstd,1 and zstd,3 |
| machine | {os.cpu_count()} CPUs ({_cpu()}), {_memory_gib()} GiB memory, {platform.system()} {platform.release()} |

All tools encrypt and compress. They take turns in the same run, {rounds} rounds; the page cache is warm, and
everything written before is synced before a clock starts. Seconds are whole commands from start to exit unless
a case says otherwise; ratios are between medians.

Data set: a SQLite database of 8 KiB pages, half of every row incompressible (2.2 GiB), files that do not
compress (1 GiB), ordinary files out of `/usr` (1 GiB). An express full comes after 1 % of all rows, one row on
each page, were rewritten at random in one transaction. perdure protects the live database with the changes in
its WAL; the peers back up the file of an equal database, after a checkpoint that is not counted. For perdure
*stored* is what the express full added; *grown* is how much the whole pool grew, the transaction log that joins
the points included, which the peers do not have.
"""


def _medians(results: Results, case: str) -> list[list[str]]:
    rows = []
    for tool in results.tools(case):
        runs = results.of(case, tool)
        middle = Run(
            case,
            tool,
            len(runs),
            "",
            _median([run.seconds for run in runs]),
            _median([run.cpu for run in runs]),
            int(_median([float(run.memory) for run in runs])),
            {name: _median([run.figures[name] for run in runs]) for name in runs[0].figures},
        )
        rows.append(_run(middle))
    return rows


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _run(run: Run) -> list[str]:
    cpu = f"{run.cpu:.2f}" if run.cpu else ""
    memory = f"{run.memory / 1e6:.0f}" if run.memory else ""
    return [run.case, run.tool, str(run.round), f"{run.seconds:.2f}", cpu, memory, _figures(run.figures)]


_MILLISECONDS = {"p50", "p99", "max"}
_COUNTS = {"rate": "commits/s", "commits": "commits"}


def _figures(figures: dict[str, float]) -> str:
    shown = []
    for name, value in figures.items():
        if name in _MILLISECONDS:
            shown.append(f"{name} {value:.0f} ms")
        elif name in _COUNTS:
            shown.append(f"{value:,.0f} {_COUNTS[name]}")
        elif name == "per_second":
            shown.append(f"{value / 1e6:,.0f} MB/s")
        else:
            shown.append(f"{name} {value / MIB:,.1f} MiB")
    if figures.get("changed") and "stored" in figures:
        shown.append(f"stored/changed {figures['stored'] / figures['changed']:.2f}")
    return ", ".join(shown)


def _table(head: Iterable[str], rows: Iterable[list[str]]) -> list[str]:
    titles = list(head)
    return [
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _short(command: str) -> str:
    """A command line with the folders of this run left out."""
    short = re.sub(r"(?<![\w.])/(?:[^\s:]*/)?([^\s/:]+)", r"\1", command)
    return re.sub(r"^python[\d.]* -m perdure", "perdure", short)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))
