"""Scripted histories: named steps that happen to a pool, each with what must be there once it has returned.

A history is what the sweeps of :mod:`perdure.testing.sweeps` interrupt everywhere. What a pool shows is a mapping of
*labels* ("point mail/first image") to fingerprints of content that was read back whole. A step says which labels it
adds and which it takes away; from that the :class:`Ledger` knows at every moment which labels must be there and which
may be. A new feature joins the proofs by adding steps to :mod:`perdure.testing.pool_history`, and a reader if it shows
something of a new kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perdure.model.errors import NotFound, PoolUnusable
from perdure.repository.keys import Passphrase
from perdure.repository.opening import create_pool, open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.contract import Storage

__all__ = ["POOL", "Disagreement", "History", "Ledger", "Reader", "Step", "World"]

POOL = "pool"
"""The label of the pool itself: it opens."""


class Disagreement(AssertionError):
    """A pool does not show what it must."""


class World:
    """Where a history takes place.

    Args:
        open_storage: Opens the pool's storage as a new process would; its argument: whether to make it.
        cache: Directory of the local cache.
        passphrases: Those that may open the pool, the newest first.
    """

    def __init__(
        self, open_storage: Callable[[bool], Storage], cache: Path, passphrases: tuple[bytes, ...] = (b"correct horse",)
    ) -> None:
        self._open_storage = open_storage
        self.cache = cache
        self.passphrases = list(passphrases)
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """The pool; it stays open from step to step, as under ``perdure watch``.

        Raises:
            NotFound: There is none.
        """
        if self._pool is None:
            self._pool = self._opened()
        return self._pool

    def _opened(self) -> Pool:
        storage = self._open_storage(False)
        for passphrase in self.passphrases[:-1]:
            with contextlib.suppress(PoolUnusable):
                return open_pool(storage, Passphrase(passphrase), self.cache)
        return open_pool(storage, Passphrase(self.passphrases[-1]), self.cache)

    def create(self) -> None:
        """Make the pool."""
        self._pool, _ = create_pool(self._open_storage(True), self.passphrases[0], self.cache)

    def close(self) -> None:
        """Close the pool as a process that ends in good order does; the next use opens it anew."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def forget(self) -> None:
        """Drop the open pool, as a process that dies."""
        self._pool = None


Reader = Callable[[Pool], Mapping[str, str]]
"""Reads one kind of thing back whole: labels and fingerprints."""


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    Args:
        name: What a person would call it.
        run: Does it. Raises nothing but ``PerdureError``.
        adds: Labels that are there, with these fingerprints, once it has returned; during it they may be.
        removes: Labels that are not there once it has returned; during it they may be gone.
    """

    name: str
    run: Callable[[World], None]
    adds: Mapping[str, str] = field(default_factory=dict)
    removes: frozenset[str] = frozenset()

    def done(self, seen: Mapping[str, str]) -> bool:
        """Whether what a pool shows says that this step was done; never of a step without labels."""
        if not self.adds and not self.removes:
            return False
        return all(seen.get(label) == mark for label, mark in self.adds.items()) and not self.removes & seen.keys()


@dataclass
class Ledger:
    """What must be there, and what may be there, while a history goes on."""

    must: dict[str, str] = field(default_factory=dict)
    may: dict[str, str] = field(default_factory=dict)

    def begins(self, step: Step) -> None:
        """A step is under way."""
        self.may.update(step.adds)
        for label in step.removes:
            self.must.pop(label, None)

    def returned(self, step: Step) -> None:
        """A step has returned."""
        self.may.update(step.adds)
        self.must.update(step.adds)
        for label in step.removes:
            self.must.pop(label, None)
            self.may.pop(label, None)

    def copy(self) -> Ledger:
        return Ledger(dict(self.must), dict(self.may))

    def check(self, seen: Mapping[str, str]) -> None:
        """Compare with what a pool shows.

        Raises:
            Disagreement: Something acknowledged is missing, or something is there that must not be.
        """
        missing = {label for label, mark in self.must.items() if seen.get(label) != mark}
        wrong = {label for label, mark in seen.items() if self.may.get(label) != mark}
        if missing or wrong:
            raise Disagreement(f"acknowledged but not there: {sorted(missing)}; there but wrong: {sorted(wrong)}")


@dataclass(frozen=True)
class History:
    """Steps in order, and how to see what they did."""

    steps: tuple[Step, ...]
    readers: tuple[Reader, ...]

    def seen(self, world: World) -> dict[str, str]:
        """Everything that the pool shows, read back whole; nothing when there is no pool.

        Raises:
            Disagreement: Two things have the same label and different content, or something is damaged.
            PerdureError: Something cannot be read.
        """
        try:
            pool = world.pool
        except NotFound as error:
            if error.code != "pool-missing":
                raise
            world.forget()
            return {}
        found = {POOL: ""}
        before = len(pool.damage)
        for reader in self.readers:
            for label, mark in reader(pool).items():
                if found.setdefault(label, mark) != mark:
                    raise Disagreement(f"two contents of {label}")
        if len(pool.damage) > before:
            raise Disagreement(f"damage: {pool.damage[before:]}")
        return found

    def check(self, world: World, ledger: Ledger, *, verify: bool = True) -> dict[str, str]:
        """Everything that the pool shows, after comparing it with a ledger and, if wanted, verifying every object.

        Raises:
            Disagreement: It is not what it must be.
        """
        seen = self.seen(world)
        ledger.check(seen)
        if seen and verify:
            report = verify_pool(world.pool, data=True, threads=1)
            if not report.sound:
                raise Disagreement(f"verification: {report.damage}")
        return seen

    def play(
        self, world: World, ledger: Ledger | None = None, *, start: int = 0, resume: bool = False
    ) -> Iterator[int]:
        """Take the steps one after the other, keeping a ledger; yields the number of each before it is taken.

        Args:
            world: Where.
            ledger: Told of every step.
            start: Number of the first step to be taken.
            resume: The first step may have been done already, in whole or in part: skip it if its labels show it.
        """
        for number in range(start, len(self.steps)):
            step = self.steps[number]
            yield number
            if ledger is not None:
                ledger.begins(step)
            if not (resume and number == start and step.done(self.seen(world))):
                step.run(world)
            if ledger is not None:
                ledger.returned(step)

    def play_all(self, world: World, ledger: Ledger | None = None, *, start: int = 0, resume: bool = False) -> None:
        """Take all steps."""
        for _ in self.play(world, ledger, start=start, resume=resume):
            pass
