"""What grows with the size of a pool: opening it, looking chunks up, marking what is garbage.

The pools are synthetic (see ``perdure.testing.synthetic_pool``). Everything is measured in a process of its own:
``python scale.py STEP FOLDER`` does one step on the pool in a folder and prints its figures as JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from measured_steps import cost_of_step
from results import Results
from scale_page import CASE, PAGE, write_page
from workspace import Workspace

from perdure.repository.gc import Survey, survey
from perdure.repository.index_snapshot import PackUse
from perdure.repository.keys import Passphrase
from perdure.repository.marking import Marks, mark
from perdure.repository.opening import open_pool
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage
from perdure.testing.synthetic_pool import SYNTHETIC_PASSPHRASE, make_synthetic_pool

SIZES = {"100 GB": 10**11, "1 TB": 10**12, "10 TB": 10**13}
SMALLEST = 10**10
"""A quick trial needs some chunks for every point too."""
LOOK_UPS = 100_000
IDS = 1_000_000

Figures = dict[str, float]


def scale(space: Workspace) -> None:
    """Every step on a pool of every size."""
    results = Results(space.folder / "scale.jsonl")
    for label, size in SIZES.items():
        case = CASE.format(label)
        results.begin(case)
        work = space.fresh("scale")
        made = cost_of_step(work, "make", work, max(SMALLEST, int(size * space.scale)))
        results.add(case, "make", 1, made, disk=_disk_usage(work))
        for step in MEASURED:
            for round_ in range(1, space.rounds + 1):
                cost = cost_of_step(work, step, work)
                results.add(case, step, round_, cost, **cost.answer)
        shutil.rmtree(work)
        write_page(results, PAGE if space.scale == 1 else space.folder / PAGE.name, scale=space.scale)


def _disk_usage(folder: Path) -> int:
    """Bytes that files take on disk; sparse ones take next to nothing."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


# --- the steps, each in a process of its own ---


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of all threads."""
    begun, cpu = perf_counter(), process_time()
    work()
    return perf_counter() - begun, process_time() - cpu


def _opened(folder: Path) -> Pool:
    """The pool with its index matched."""
    pool = open_pool(LocalStorage(folder / "pool"), Passphrase(SYNTHETIC_PASSPHRASE), folder / "cache")
    assert pool.index.pack_count
    return pool


def open_only(folder: Path) -> Figures:
    """From nothing to an index that agrees with the pool: keys, listing, cache, matching. Then the same again."""
    pools: list[Pool] = []
    opened, opened_cpu = _timed(lambda: pools.append(_opened(folder)))
    again, again_cpu = _timed(pools[0].matched.refresh)
    index = pools[0].index
    return {
        "open_s": opened,
        "open_cpu_s": opened_cpu,
        "match_again_s": again,
        "match_again_cpu_s": again_cpu,
        "chunks": len(index),
        "packs": index.pack_count,
    }


def look_up(folder: Path) -> Figures:
    """Single look-ups of random chunks that are there and of ids that are not, then many at once."""
    index = _opened(folder).index
    rng = np.random.default_rng(2)
    snapshot = index.snapshot()
    present = [each.tobytes() for each in snapshot.ids(rng.integers(0, snapshot.row_count, LOOK_UPS))]
    absent = [rng.bytes(32) for _ in range(LOOK_UPS)]
    ids = snapshot.ids(rng.integers(0, snapshot.row_count, IDS))
    assert all(map(index.has, present[:1000]))
    assert not any(map(index.has, absent))
    assert (snapshot.rows(ids[:1000]) >= 0).all()
    figures = {}
    for name, count, work in (
        ("find", LOOK_UPS, lambda: [index.find(chunk) for chunk in present]),
        ("has_absent", LOOK_UPS, lambda: [index.has(chunk) for chunk in absent]),
        ("rows", IDS, lambda: snapshot.rows(ids)),
        ("snapshot", 1, index.snapshot),
    ):
        seconds, cpu = _timed(work)
        figures[f"{name}_per_s"], figures[f"{name}_per_cpu_s"] = count / seconds, count / cpu
    return figures


def mark_and_count(folder: Path) -> Figures:
    """What garbage collection begins with: mark from all records, then count per pack."""
    pool = _opened(folder)
    made = json.loads((folder / "made.json").read_text())
    snapshot = pool.index.snapshot()
    found: list[Marks] = []
    marked, marked_cpu = _timed(lambda: found.append(mark(pool, snapshot)))
    used: list[PackUse] = []
    counted, counted_cpu = _timed(lambda: used.append(snapshot.per_pack(found[0].live)))
    of_data = used[0].live_chunks[used[0].stored == used[0].chunks * (1 << 20)].sum()
    assert (int(of_data), len(found[0].elsewhere), found[0].points) == (made["live"], 0, made["points"])
    return {"mark_s": marked, "mark_cpu_s": marked_cpu, "count_s": counted, "count_cpu_s": counted_cpu}


def survey_garbage(folder: Path) -> Figures:
    """``perdure gc`` up to the moment at which it would condemn something: match, mark, count, choose packs."""
    pool = _opened(folder)
    found: list[Survey] = []
    seconds, cpu = _timed(lambda: found.append(survey(pool)))
    return {
        "survey_s": seconds,
        "survey_cpu_s": cpu,
        "dead_packs": len(found[0].dead),
        "thin_packs": len(found[0].thin),
    }


MEASURED: dict[str, Callable[[Path], Figures]] = {
    "open": open_only,
    "look up": look_up,
    "mark": mark_and_count,
    "survey": survey_garbage,
    # What else grows with a pool gets its line here: a function from the folder to figures.
}


def main() -> int:
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "make":
        made = asdict(make_synthetic_pool(folder, int(sys.argv[3])))
        text = json.dumps({**made, "root": "", "cache": ""})
        (folder / "made.json").write_text(text)
        print(text)
    else:
        print(json.dumps(MEASURED[step](folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
