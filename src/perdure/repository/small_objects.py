"""Checking a pool's small objects one by one.

They are descriptor, key slots, sources, holds, drills, policies, condemned lists, ledgers, records, and the log
segments' footers with the chain that they make.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from perdure.model.errors import Damaged
from perdure.model.logs import LogSpan
from perdure.model.points import Hold, RecoveryPoint
from perdure.model.positions import Position
from perdure.model.retention import RetentionPolicy
from perdure.repository import condemned, drills, ledger, logs, records
from perdure.repository.container import Kind
from perdure.repository.damage import Damage, failures_of
from perdure.repository.descriptor import NAMES, check_descriptor
from perdure.repository.documents import numbered, read_document
from perdure.repository.holds import hold_name
from perdure.repository.key_sets import check_key_object, read_keys
from perdure.repository.pool import Pool
from perdure.repository.replacing import RESCUED
from perdure.storage.contract import ObjectInfo, ObjectMissing, Storage

__all__ = ["SmallObjects", "check_key"]


class SmallObjects:
    """Checks small objects and keeps the count.

    Args:
        pool: The pool.
        names: What people call each source, by its id.
        progress: Told of the bytes of every object.
        now_ns: The time, nanoseconds since 1970 UTC.

    Attributes:
        objects: Objects checked.
        bytes: Their bytes.
        damage: What was found.
    """

    def __init__(self, pool: Pool, names: dict[str, str], progress: Callable[[int], None], now_ns: int) -> None:
        self._pool = pool
        self._names = names
        self._progress = progress
        self._now_ns = now_ns
        self._failures = failures_of(pool.storage)
        self.objects = 0
        self.bytes = 0
        self.damage: list[Damage] = []

    def note(
        self,
        name: str,
        kind: str,
        what: str,
        affected: tuple[str, ...] = (),
        points: tuple[tuple[str, int], ...] = (),
    ) -> None:
        """Note damage."""
        self.damage.append(Damage(name, kind, what, affected, points, (), self._now_ns))

    def count(self, size: int) -> None:
        """Count an object."""
        self.objects += 1
        self.bytes += size
        self._progress(size)

    def label(self, source: str, number: int) -> str:
        """What people call a point."""
        return f"{self._names.get(source, source)} #{number}"

    def check_all(self) -> None:
        """Check everything but records and log."""
        storage = self._pool.storage
        for name in NAMES:
            self._check(ObjectInfo(name, 0), "descriptor", partial(_descriptor, storage, name))
        for listed in storage.list("keys"):
            self._check(listed, "key slot", partial(check_key, storage, listed.name))
        for name, failure in read_keys(storage).damaged.items():
            self.note(name, "key slot", f"{failure.message}; nothing opens the pool by it")
        self._check_each("sources", "source", lambda name: records.read_source(storage, self._pool.keys, name))
        self._check_each("holds", "hold", self._read_hold)
        self._check_each("drills", "drill", lambda name: drills.read_drill(storage, self._pool.keys, name))
        self._check_each("policies", "policy", self._read_policy)
        self._check_each("gc", "condemned list", self._read_list)
        self._check_each("checks", "ledger", self._read_ledger)
        for listed in storage.list(RESCUED):
            self.note(
                listed.name,
                "unfinished healing",
                f"the healing of {listed.name.removeprefix(RESCUED + '/')} was cut off; "
                "perdure verify --heal finishes it",
            )

    def read_point(self, listed: ObjectInfo) -> RecoveryPoint | None:
        """Check a record; ``None`` if it is damaged or was deleted meanwhile."""
        source, number = listed.name.split("/")[1], records.point_number(listed.name)
        self.count(listed.size)
        if number is None:
            self.note(listed.name, "record", "this is not the name of a record")
            return None
        try:
            return records.read_point(self._pool.storage, self._pool.keys, listed.name)
        except self._failures as error:
            if self.is_there(listed.name):
                self.note(listed.name, "record", error.message, (self.label(source, number),), ((source, number),))
            return None

    def is_there(self, name: str) -> bool:
        """Whether an object was not deleted meanwhile."""
        try:
            self._pool.storage.size(name)
        except ObjectMissing:
            return False
        return True

    # --- log ---

    def check_logs(self, images: dict[str, list[Position]]) -> None:
        """Check the footer of every log segment, and that the segments of each source join.

        Args:
            images: The positions of the images of every source.
        """
        source, joined = "", _Joined([])
        for listed in self._pool.storage.list("logs"):
            span = logs.span_of(listed)
            self.count(listed.size)
            if span is None:
                self.note(listed.name, "log", "this is not the name of a log segment")
                continue
            if listed.name.split("/")[1] != source:
                source = listed.name.split("/")[1]
                joined = _Joined(images.get(source, []))
            after = self._check_segment(source, span)
            gap = joined.gap_before(span, after)
            if gap is not None and self.is_there(span.name):
                self.note(
                    span.name,
                    "log",
                    f"the log has a gap before it: from {gap} to {after or span.after_place} there is none",
                    (self._after(source, span.generation, gap.place),),
                )

    def _check_segment(self, source: str, span: LogSpan) -> Position | None:
        """Check a footer; returns the position that the segment continues, as far as that is known."""
        try:
            return logs.read_segment(self._pool.storage, self._pool.keys, span).after
        except self._failures as error:
            if self.is_there(span.name):
                self.note(span.name, "log", error.message, self.log_affected(source, span))
        return Position(span.generation, span.after_place) if span.after_place else None

    def log_affected(self, source: str, span: LogSpan) -> tuple[str, ...]:
        """What damage of a log segment costs."""
        return (self._after(source, span.generation, span.after_place),)

    def _after(self, source: str, generation: int, place: int) -> str:
        return f"{self._names.get(source, source)} after {generation}:{place}"

    # --- others ---

    def _check(self, listed: ObjectInfo, kind: str, read: Callable[[], object]) -> None:
        try:
            read()
        except ObjectMissing as error:
            # Only the descriptor is looked for without being listed; whatever else is gone was removed meanwhile.
            if kind == "descriptor":
                self.note(listed.name, kind, error.message)
        except self._failures as error:
            self.note(listed.name, kind, error.message)
        self.count(listed.size)

    def _check_each(self, prefix: str, kind: str, read: Callable[[str], object]) -> None:
        for listed in self._pool.storage.list(prefix):
            self._check(listed, kind, partial(read, listed.name))

    def _read_hold(self, name: str) -> None:
        hold = read_document(self._pool.storage, self._pool.keys, name, Kind.HOLD, Hold)
        if hold_name(hold.source, hold.number) != name:
            raise Damaged(f"{name} is damaged: it holds another point", code="damaged-object")

    def _read_policy(self, name: str) -> None:
        _number(name)
        read_document(self._pool.storage, self._pool.keys, name, Kind.POLICY, RetentionPolicy)

    def _read_list(self, name: str) -> None:
        condemned.read_condemned(self._pool.storage, self._pool.keys, _number(name))

    def _read_ledger(self, name: str) -> None:
        ledger.read_one(self._pool.storage, self._pool.keys, _number(name))


class _Joined:
    """How far the log of one source is joined; segments come in the order of their names.

    Args:
        images: Positions of its images. Log may begin anew at each.
    """

    def __init__(self, images: list[Position]) -> None:
        self._images = frozenset(images)
        self._reached: Position | None = None

    def gap_before(self, span: LogSpan, after: Position | None) -> Position | None:
        """The position after which log is missing before a segment, if any is.

        What begins at an image needs nothing before it. A generation that is skipped, or whose opening segment
        cannot be read, says nothing.
        """
        reached = self._reached
        self._reached = max(reached, span.last) if reached is not None else span.last
        if reached is None or after is None or after <= reached or after in self._images:
            return None
        return reached if after.generation == reached.generation else None


def _number(name: str) -> int:
    number = numbered(name)
    if number is None:
        raise Damaged(f"{name} is not the name of such an object", code="damaged-object")
    return number


def _descriptor(storage: Storage, name: str) -> None:
    check_descriptor(storage.read(name), name)


def check_key(storage: Storage, name: str) -> None:
    """Read a key slot or key set.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: There is none.
    """
    check_key_object(storage.read(name), name)
