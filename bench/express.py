"""Express fulls after 1 % of all pages changed, and recoveries from a long row of them.

Two applications have equal databases open and make equal changes. perdure protects the first, live, with the
changes in its WAL. The second is checkpointed after every change, since the peers see only files; that is not
counted against them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from application import Application, digest
from tools import MEASURE, Cost, Peer, Perdure, Restic, peers
from workspace import Workspace

from perdure.testing.demo.answers import full_points
from perdure.testing.demo.program import Program
from perdure.testing.demo.watching import Watch

KNOWN = "express full, pages known, whole command"
WATCHED = "express full, pages known, inside watch"
COMPARED = "express full, pages unknown"
RECOVERY = "recovery after 30 express fulls"
ROW = 30
CHECKED_TOO = f"perdure, point {ROW + 1}, PRAGMA quick_check included"
WATCH_EVERY = "2s"
PATIENCE = 300.0


@dataclass
class Pair:
    """The two applications, and who protects them."""

    live: Application
    filed: Application
    perdure: Perdure
    peers: list[Peer]
    seed: int = 0

    def change(self) -> int:
        """Change 1 % of both databases; the second one's changes are in its file afterwards."""
        self.seed += 1
        changed = self.live.change(self.seed)
        self.filed.change(self.seed)
        self.filed.checkpoint()
        return changed


@contextmanager
def _pair(space: Workspace, name: str, *, every_peer: bool = False) -> Iterator[Pair]:
    """Two open databases, both copied once already."""
    space.make_data()
    work = space.fresh(name)
    live, filed = space.copy_of_database(work, "live.db"), space.copy_of_database(work, "filed.db")
    perdure = Perdure(work, "sqlite")
    others: list[Peer] = peers(work, "sqlite") if every_peer else [Restic(work, "sqlite")]
    with Application(live) as first, Application(filed) as second:
        # From here on the applications hold the WAL: nobody's close is the last one, which would remove it.
        first.change(0, 0.0)
        second.change(0, 0.0)
        second.checkpoint()
        perdure.run("protect", f"sqlite:{live}", "--pool", perdure.pool, "--as", "app")
        for peer in others:
            peer.backup(filed)
        yield Pair(first, second, perdure, others)
    shutil.rmtree(work)


def _back_up(space: Workspace, case: str, pair: Pair, round_: int, changed: int) -> None:
    for peer in pair.peers:
        before = peer.size()
        cost = peer.backup(pair.filed.database)
        space.results.add(case, peer.name, round_, cost, changed=changed, stored=peer.size() - before)


def _express_full(space: Workspace, case: str, pair: Pair, round_: int, changed: int) -> dict[str, Any]:
    before = pair.perdure.size()
    cost = pair.perdure.run("express-full", "app")
    point: dict[str, Any] = cost.answer["point"]
    grown = pair.perdure.size() - before
    figures = {"changed": changed, "stored": point["stored"], "grown": grown, "read": point["read"]}
    space.results.add(case, "perdure", round_, cost, **figures)
    return point


def express_full(space: Workspace) -> None:
    """The changed pages are known from the WAL: the whole command, from start to exit, its log included."""
    space.results.begin(KNOWN)
    with _pair(space, "express-full", every_peer=True) as pair:
        for round_ in range(1, space.rounds + 1):
            changed = pair.change()
            point = _express_full(space, KNOWN, pair, round_, changed)
            if "tracking lost" in point["cause"]:
                raise RuntimeError(f"the changed pages should have been known: {point['cause']}")
            _back_up(space, KNOWN, pair, round_, changed)


def express_full_in_watch(space: Workspace) -> None:
    """The same inside ``perdure watch``: from the frozen image to the durable record."""
    space.results.begin(WATCHED)
    with _pair(space, "express-full-watch") as pair:
        perdure = pair.perdure
        cost_file = perdure.folder / "watch-cost.json"
        through = (sys.executable, str(MEASURE), str(cost_file))
        program = Program(perdure.home, perdure.passphrase_file, perdure.folder / "stderr", through)
        with Watch(program, "app", "--express-full-every", WATCH_EVERY) as watch:
            watch.wait_for("express full", PATIENCE)
            for round_ in range(1, space.rounds + 1):
                seen = len(watch.events)
                changed = pair.change()
                point = _full_with_change(watch, seen, changed)
                cost = Cost(f"inside perdure watch app --express-full-every {WATCH_EVERY}", point.seconds, 0.0, 0, {})
                figures = {"changed": changed, "stored": point.stored, "read": point.read}
                space.results.add(WATCHED, "perdure", round_, cost, **figures)
                _back_up(space, WATCHED, pair, round_, changed)
            watch.stop()


def _full_with_change(watch: Watch, seen: int, changed: int) -> Any:
    """The express full that holds a change, which came in one transaction; others in between hold nothing."""
    while True:
        watch.wait_for("express full", PATIENCE, after=seen)
        for number in range(seen, len(watch.events)):
            seen = number + 1
            for point in full_points(watch.events[number : number + 1]):
                if point.changed >= changed * 0.9:
                    return point


def express_full_compared(space: Workspace) -> None:
    """The application checkpointed while perdure was not running, so that every page has to be compared."""
    space.results.begin(COMPARED)
    with _pair(space, "express-full-compared") as pair:
        for round_ in range(1, space.rounds + 1):
            changed = pair.change()
            pair.live.checkpoint()
            point = _express_full(space, COMPARED, pair, round_, changed)
            if "tracking lost" not in point["cause"]:
                raise RuntimeError(f"the pages should have had to be compared: {point['cause']}")
            _back_up(space, COMPARED, pair, round_, changed)


def recovery(space: Workspace) -> None:
    """The whole database from the 30th express full, from the first point, and from restic's 30th snapshot."""
    space.results.begin(RECOVERY)
    with _pair(space, "recovery") as pair:
        (restic,) = pair.peers
        assert isinstance(restic, Restic)
        number = 0
        for _ in range(ROW):
            pair.change()
            number = pair.perdure.run("express-full", "app").answer["point"]["number"]
            restic.backup(pair.filed.database)
        expected = digest(pair.filed.database)
        for round_ in range(1, space.rounds + 1):
            _recover(space, pair.perdure, f"perdure, point {ROW + 1}", round_, number=number, expected=expected)
            _restore(space, restic, pair.filed.database, round_, expected)
            _recover(space, pair.perdure, "perdure, first point", round_, number=1, expected="")
            # Like with like above: restic checks nothing after writing. By default perdure lets the engine check.
            _recover(space, pair.perdure, CHECKED_TOO, round_, number=number, expected=expected, verify="quick")


def _recover(
    space: Workspace, perdure: Perdure, tool: str, round_: int, *, number: int, expected: str, verify: str = "none"
) -> None:
    target = perdure.folder / "recovered.db"
    cost = perdure.run("recover", "app", "--to", f"#{number}", "--target", target, "--verify", verify)
    space.results.add(RECOVERY, tool, round_, cost, size=target.stat().st_size)
    if expected and digest(target) != expected:
        raise RuntimeError("what perdure recovered is not what was protected")
    target.unlink()


def _restore(space: Workspace, restic: Restic, database: Path, round_: int, expected: str) -> None:
    target = restic.folder / "restored"
    cost = restic.restore(target)
    (restored,) = target.rglob(database.name)
    space.results.add(RECOVERY, "restic", round_, cost, size=restored.stat().st_size)
    if digest(restored) != expected:
        raise RuntimeError("what restic restored is not what was backed up")
    shutil.rmtree(target)
