"""``python -m perdure.testing.demo``."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.mailbox_act import MailboxPlan, play_mailboxes
from perdure.testing.demo.mailbox_report import show_mailbox_report
from perdure.testing.demo.report import show_report
from perdure.testing.demo.scene import Plan, play
from perdure.testing.demo.showing import Show

_MIB = 1 << 20
_ROOM = 8
"""Times the size of the store that the demo needs: the store, its log, the pool, four recovered copies."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 when every check passed, 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.demo", description=__doc__)
    parser.add_argument("--dir", type=Path, help="an empty folder to work in; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    parser.add_argument("--seed", type=int, help="decides the random moments; default: a new one every time")
    parser.add_argument("--size", type=int, default=300, help="mail store in MiB (default 300)")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of the load (default 40)")
    parser.add_argument("--express-full-every", type=float, default=12.0, help="seconds between them (default 12)")
    parser.add_argument("--act", choices=("1", "2", "all"), default="all", help="1: SQLite, 2: Exchange (default all)")
    given = parser.parse_args(arguments)
    if given.dir is not None and given.dir.exists() and any(given.dir.iterdir()):
        parser.error(f"{given.dir} is not empty")
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10_000)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if given.dir is not None:
        given.dir.mkdir(parents=True, exist_ok=True)
    folder = given.dir.absolute() if given.dir is not None else Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    plan = Plan(
        folder, seed, size=given.size * _MIB, seconds=given.seconds, express_full_every=given.express_full_every
    )
    keep = given.keep or given.dir is not None
    try:
        _must_have_room(folder, plan.size * _ROOM)
        show = Show(console)
        if given.act != "2":
            show_report(play(plan, show), console)
        if given.act != "1":
            console.rule("A mailbox database")
            mailboxes = MailboxPlan(folder, seed, size=plan.size, seconds=0.6 * plan.seconds)
            show_mailbox_report(play_mailboxes(mailboxes, show), console)
    except DemoFailed as failure:
        keep = True
        console.print(f"\n[bold red]FAILED[/bold red] (seed {seed}): {failure}", highlight=False)
        return 1
    finally:
        if keep:
            console.print(f"\nEverything is kept in {folder}", highlight=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _must_have_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DemoFailed(
            f"{folder} has {free // _MIB} MiB free, and the demo needs about {size // _MIB}; use --dir or --size"
        )


if __name__ == "__main__":
    sys.exit(main())
