"""The page on what grows with the size of a pool, and its plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from math import log10
from pathlib import Path
from statistics import median

from results import Results, Run

from perdure import __version__

CASE = "pool of {}"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "scale.md"

_UNITS = {"GB": 1e9, "TB": 1e12}


def write_page(results: Results, target: Path, *, scale: float) -> None:
    """Write the page, and the plot beside it, from everything that was measured so far."""
    cases = sorted({run.case for run in results.runs}, key=_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    plot = target.with_suffix(".svg")
    plot.write_text(_plot(results, cases))
    note = "" if scale == 1 else f"\n**Sizes were scaled by {scale}.**\n"
    target.write_text(
        _HEAD.format(
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            note=note,
            version=f"perdure {__version__}, Python {platform.python_version()}",
            machine=f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
            load=f"{os.getloadavg()[2]:.0f}",
        )
        + "\n".join(_table(results, cases))
        + f"\n\n![Time and memory against the size of the pool]({plot.name})\n"
    )
    print(f"  written to {target}", flush=True)


_HEAD = """# Pools of up to 10 TB

Written by `bench/run.py --only scale` on {date}: {version}, {machine}.
{note}
The pools are synthetic (`perdure.testing.synthetic_pool`): 20 data sources with 50 recovery points each. Records,
extent maps in sealed packs, the index cache and the listing are real and read by the code that reads them in any
pool; the packs of data are sparse files, and the ids of their chunks random. So this page says nothing about reading
or writing data, for which see [Benchmarks](benchmarks.md), and nothing about the first opening of a pool without a
cache, which reads every pack's footer.

Every line is the median of a process of its own, peak memory its own as the kernel reports it; that includes those
pages of the mapped index cache which the process touched, and which the kernel can take back at any time. The
machine's page cache was warm. Listing is that of a local directory. Numbers in brackets are by the CPU seconds of the
process instead of the clock: what a machine with nothing else to do comes near to. The load average of the last
quarter of an hour was {load}; more than 1 means that the machine was busy with other work too.

"""


def _value(tool: str, name: str) -> Callable[[Results, str], float]:
    return lambda results, case: median(run.figures[name] for run in _runs(results, case, tool))


def _memory(tool: str) -> Callable[[Results, str], float]:
    return lambda results, case: median(run.memory / 1e6 for run in _runs(results, case, tool))


def _runs(results: Results, case: str, tool: str) -> list[Run]:
    return results.of(case, tool)


_Line = tuple[str, str, Callable[[Results, str], float], Callable[[Results, str], float] | None]
"""Title, form of the number, what was measured, and the same by CPU time."""

_LINES: list[_Line] = [
    ("packs", "{:,.0f}", _value("open", "packs"), None),
    ("chunks", "{:,.0f}", _value("open", "chunks"), None),
    (
        "open: keys, listing, cache, matching",
        "{:.2f} s",
        _value("open", "open_s"),
        _value("open", "open_cpu_s"),
    ),
    ("match again", "{:.2f} s", _value("open", "match_again_s"), _value("open", "match_again_cpu_s")),
    ("peak memory of that", "{:.0f} MB", _memory("open"), None),
    ("single look-ups, present", "{:,.0f}/s", _value("look up", "find_per_s"), _value("look up", "find_per_cpu_s")),
    (
        "single look-ups, absent",
        "{:,.0f}/s",
        _value("look up", "has_absent_per_s"),
        _value("look up", "has_absent_per_cpu_s"),
    ),
    (
        "look-ups of a million at once",
        "{:,.0f}/s",
        _value("look up", "rows_per_s"),
        _value("look up", "rows_per_cpu_s"),
    ),
    ("peak memory of that", "{:.0f} MB", _memory("look up"), None),
    ("mark from 1,000 points", "{:.2f} s", _value("mark", "mark_s"), _value("mark", "mark_cpu_s")),
    ("count per pack", "{:.2f} s", _value("mark", "count_s"), _value("mark", "count_cpu_s")),
    ("peak memory of that", "{:.0f} MB", _memory("mark"), None),
    ("`gc` up to condemning", "{:.2f} s", _value("survey", "survey_s"), _value("survey", "survey_cpu_s")),
    ("peak memory of that", "{:.0f} MB", _memory("survey"), None),
]


def _table(results: Results, cases: list[str]) -> list[str]:
    rows = [
        f"| | {' | '.join(case.removeprefix(CASE.format('')) for case in cases)} |",
        f"|{'---|' * (len(cases) + 1)}",
    ]
    for title, form, value, cpu in _LINES:
        cells = []
        for case in cases:
            by_cpu = "" if cpu is None else f" ({form.format(cpu(results, case))})"
            cells.append(form.format(value(results, case)) + by_cpu)
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


# --- the plot ---

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 300, 70, 40, 30


def _bytes(case: str) -> float:
    number, unit = case.split()[-2:]
    return float(number) * _UNITS[unit]


def _plot(results: Results, cases: list[str]) -> str:
    """Two panels, seconds and megabytes, both axes logarithmic."""
    seconds = {
        "open": _value("open", "open_s"),
        "match again": _value("open", "match_again_s"),
        "mark": _value("mark", "mark_s"),
    }
    memory = {"open": _memory("open"), "mark": _memory("mark"), "gc": _memory("survey")}
    panels = [("seconds", (0.01, 1000.0), seconds), ("peak memory, MB", (10.0, 1000.0), memory)]
    size = f'viewBox="0 0 {2 * _WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, limits, lines) in enumerate(panels):
        parts.append(
            f'<g transform="translate({number * _WIDTH} 0)">{_panel(title, limits, lines, results, cases)}</g>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    title: str,
    limits: tuple[float, float],
    lines: dict[str, Callable[[Results, str], float]],
    results: Results,
    cases: list[str],
) -> str:
    low, high = map(log10, limits)
    first, last = log10(_bytes(cases[0])), max(log10(_bytes(cases[-1])), log10(_bytes(cases[0])) + 1)
    right = _WIDTH - 90

    def across(size: float) -> float:
        return _LEFT + (log10(size) - first) / (last - first) * (right - _LEFT)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (log10(max(value, limits[0])) - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<text x="{_LEFT}" y="18" font-weight="bold">{title}</text>']
    for power in range(int(low), int(high) + 1):
        y = up(10.0**power)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for case in cases:
        x = across(_bytes(case))
        label = case.removeprefix(CASE.format(""))
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{label}</text>')
    ends: list[tuple[float, str, str]] = []
    for (name, value), colour in zip(lines.items(), ("#0b6e4f", "#c8553d", "#2f4b7c"), strict=False):
        points = [(across(_bytes(case)), up(value(results, case))) for case in cases]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        ends.append((points[-1][1], name, colour))
    below = 0.0
    for y, name, colour in sorted(ends):
        # Names of lines that end at nearly the same place are written one below the other.
        below = max(y + 4, below + 13)
        parts.append(f'<text x="{right + 8}" y="{below:.1f}" fill="{colour}">{name}</text>')
    return "\n".join(parts)
