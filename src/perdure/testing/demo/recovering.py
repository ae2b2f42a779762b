"""Recover a moment, and check what came out against the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import apsw

from perdure.model.moments import moment_text, rfc3339
from perdure.model.positions import Position
from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.lag import Anchor
from perdure.testing.demo.program import Program
from perdure.testing.mailstore import Ledger, clock_of

__all__ = ["RESOLUTION_NS", "Recovered", "Wanted", "recover"]

RESOLUTION_NS = 1_000_000_000
"""A recovery to a time may leave out transactions committed this shortly before it.

SQLite's log carries no times: perdure knows a transaction by the moment when it saw it, which is a little after
its COMMIT. It may never show a transaction that had not begun by then.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to recover.

    Args:
        title: For people.
        to: What ``--to`` is given.
        shown: The same, short, for people.
        time_ns: The moment, when a time is asked for.
        n: The very commit, when one is asked for.
    """

    title: str
    to: str
    shown: str
    time_ns: int | None = None
    n: int | None = None

    @classmethod
    def at_time(cls, title: str, time_ns: int, n: int | None = None) -> Wanted:
        """A moment; ``n`` when only one commit can be the answer."""
        return cls(title, rfc3339(time_ns), moment_text(time_ns)[11:23], time_ns, n)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A recovery that passed every check.

    Args:
        wanted: What was asked for.
        anchor: The position that perdure says it is, and the commit that the copy holds.
        missed: Transactions whose COMMIT had returned by the moment that was asked for and that are not in it.
        seconds: The whole ``perdure recover`` command.
        checked_seconds: The comparison with the ledger.
        rows: Rows compared.
        size: Bytes of the copy.
    """

    wanted: Wanted
    anchor: Anchor
    missed: int
    seconds: float
    checked_seconds: float
    rows: int
    size: int


def recover(program: Program, name: str, wanted: Wanted, target: Path, ledger: Ledger) -> Recovered:
    """Recover to a new file, and compare every row of every table with the ledger.

    Raises:
        DemoFailed: It could not be recovered, is damaged, shows another moment, or any row differs.
    """
    answer = program.run("recover", name, "--to", wanted.to, "--target", target)
    begun = monotonic()
    try:
        n = clock_of(target)
    except apsw.Error as error:
        raise DemoFailed(f"{wanted.title}: the copy cannot be read as a mail store: {error}") from error
    if n > ledger.last:
        raise DemoFailed(f"{wanted.title}: the copy holds commit {n}, but the ledger ends at {ledger.last}")
    differences = ledger.compare(target, n)
    if differences:
        shown = "\n  ".join(differences[:10])
        raise DemoFailed(f"{wanted.title}: the copy at commit {n} differs from the ledger:\n  {shown}")
    missed = _missed(wanted, n, ledger)
    rows = sum(map(len, ledger.state_at(n).values()))
    anchor = Anchor(Position.parse(answer.document["position"]), n)
    return Recovered(wanted, anchor, missed, answer.seconds, monotonic() - begun, rows, target.stat().st_size)


def _missed(wanted: Wanted, n: int, ledger: Ledger) -> int:
    """Check that the copy shows the moment that was asked for; returns by how many commits it stays behind."""
    if wanted.n is not None and n != wanted.n:
        raise DemoFailed(f"{wanted.title}: commit {wanted.n} was asked for, the copy holds commit {n}")
    if wanted.time_ns is None:
        return 0
    bounds = ledger.bounds_at(wanted.time_ns)
    if n >= bounds.not_yet:
        raise DemoFailed(
            f"{wanted.title}: the copy holds commit {n}, but commit {bounds.not_yet} had not begun at that time"
        )
    surely = ledger.bounds_at(wanted.time_ns - RESOLUTION_NS).committed
    if n < surely:
        raise DemoFailed(
            f"{wanted.title}: the copy holds commit {n}, but commit {surely} had returned more than "
            f"{RESOLUTION_NS / 1e9:.0f} s before that time"
        )
    return max(0, bounds.committed - n)
