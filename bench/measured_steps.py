"""Steps of ``scale.py``, each run and measured as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tools import Cost, run

SCALE = Path(__file__).with_name("scale.py")


def cost_of_step(work: Path, step: str, *arguments: Path | int) -> Cost:
    """Run one step to its end; its figures are the answer."""
    cost = run(work, [sys.executable, SCALE, step, *map(str, arguments)], {}, answer=True)
    return Cost(f"scale.py {step}", cost.seconds, cost.cpu, cost.memory, cost.answer)
