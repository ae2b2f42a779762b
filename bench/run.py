"""Measure perdure against Debian's restic and borg, and write ``docs/reference/benchmarks.md``.

python bench/run.py                   # everything, about an hour and 25 GB of disk
python bench/run.py --only scale      # pools of up to 10 TB, which write ``docs/reference/scale.md``; needs no peers
python bench/run.py --only recovery   # one case; with --dir the results of the others are kept
python bench/run.py --scale 0.02      # a quick trial; written beside the results, not into the documentation
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from copying import first_copy, first_copy_of_database
from ese import ese_files
from exchange import exchange
from express import express_full, express_full_compared, express_full_in_watch, recovery
from lagging import log_lag
from objects import first_copy_to_objects
from pruning import first_copy_threads, prune_half
from remembering import peak_memory
from results import Results
from scale import scale
from verifying import verifying
from workspace import Workspace
from writing import page

CASES: dict[str, Callable[[Workspace], None]] = {
    "first-copy": first_copy,
    "first-copy-database": first_copy_of_database,
    "first-copy-objects": first_copy_to_objects,
    "express-full": express_full,
    "express-full-watch": express_full_in_watch,
    "express-full-compared": express_full_compared,
    "recovery": recovery,
    "log-lag": log_lag,
    "memory": peak_memory,
    "prune": prune_half,
    "threads": first_copy_threads,
    "verifying": verifying,
    "scale": scale,
    "ese": ese_files,
    "exchange": exchange,
}
ALONE = {"scale"}
"""Cases that write a page of their own."""

WITHOUT_PEERS = {"scale", "threads", "prune", "verifying", "first-copy-objects", "ese", "exchange", "log-lag"}
"""Cases in which perdure is measured against ceilings, not against other tools."""
ROOM_GB = 25
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "benchmarks.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), help="measure only this; may be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all sizes (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="how often every tool takes its turn (default 3)")
    parser.add_argument("--dir", type=Path, help="where to work and keep results; default: a temporary folder")
    parser.add_argument("--output", type=Path, help="the page; default: the documentation's, if --scale is 1")
    given = parser.parse_args()
    names = given.only or list(CASES)
    for tool in ("restic", "borg") if set(names) - WITHOUT_PEERS else ():
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed; on Debian: apt install restic borgbackup")
    folder = given.dir.absolute() if given.dir else Path(tempfile.mkdtemp(prefix="perdure-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    if free < ROOM_GB * given.scale:
        parser.error(f"{folder} has {free:.0f} GB free, and {ROOM_GB * given.scale:.0f} are needed; use --dir")
    print(f"Working in {folder}, {free:.0f} GB free", flush=True)
    results = Results(folder / "results.jsonl")
    space = Workspace(folder, given.scale, given.rounds, results)
    try:
        for name in names:
            print(f"{name}:", flush=True)
            CASES[name](space)
            if name in ALONE:
                continue
            _write(given.output or (PAGE if given.scale == 1 else folder / "benchmarks.md"), space)
    finally:
        if not given.dir:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _write(target: Path, space: Workspace) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    target.write_text(page(space.results, scale=space.scale, rounds=space.rounds, date=date))
    print(f"  written to {target}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
