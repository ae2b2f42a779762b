"""Copying one source: what the other pool lacks of its points and its log, in the order of the timeline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged, NotFound, PerdureError, Refused
from perdure.model.logs import LogSpan
from perdure.model.points import DataSource, Hold, RecoveryPoint
from perdure.repository import records
from perdure.repository.copying_arrival import DamagedOnArrival
from perdure.repository.copying_choice import Choice, choose, diverged, refuse_unknown, same_point
from perdure.repository.copying_chunks import Origin, Shipment, Traffic
from perdure.repository.copying_log import Coverage, copy_segment, widest_first
from perdure.repository.copying_pairs import learn
from perdure.repository.copying_point import needed_chunks, translated
from perdure.repository.copying_report import CopyFailure, SourceCopy
from perdure.repository.copying_streams import AheadStreams
from perdure.repository.copying_translation import Translation
from perdure.repository.leases import WorkLease, take_lease
from perdure.repository.policies import read_policy
from perdure.repository.pool import Pool
from perdure.repository.reach import Ids
from perdure.storage.contract import ObjectExists, ObjectMissing

__all__ = ["CopyOptions", "Progress", "copy_source"]

Progress = Callable[[str, int, int], None]
"""Told the stage, bytes dealt with since the last call, and bytes of the stage in all; from any thread."""


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How a copy is made.

    Args:
        verify: Read everything back before anything names it.
        threads: Workers that read, decrypt, compress and encrypt.
        progress: Told of the bytes.
    """

    verify: bool = True
    threads: int = 2
    progress: Progress = _quiet


def copy_source(
    origin: Origin, target: Pool, source: DataSource, numbers: frozenset[int] | None, options: CopyOptions
) -> SourceCopy:
    """Copy what a pool lacks of a source.

    Args:
        origin: The pool that is copied from.
        target: The pool that is copied into.
        source: The source.
        numbers: Only these points, whatever the target's policy says, and no log; all points and log if ``None``.
        options: How.

    Raises:
        NotFound: There is no point of one of these numbers.
        Refused: The target has another source of this name (``name-taken``), or its points or log of this source are
            others than those of the origin (``copy-diverged``).
        DamagedOnArrival: What was written does not read back as it was.
        PoolUnusable: One of the pools cannot be used any more.
    """
    if numbers is not None:
        refuse_unknown(origin.pool, source, numbers)
    notes = _register(origin.pool, target, source)
    # What is known to lie in the target is relied on for as long as this lease is held: what is condemned later
    # waits for it, and what was condemned before is not relied on.
    lease = take_lease(target.storage)
    try:
        target.matched.heed_condemned()
        choice = choose(origin.pool, target, source, numbers)
        copying = _SourceCopying(origin, target, source, choice=choice, options=options, lease=lease)
        report = copying.run(numbers)
        report.notes[:0] = notes
        return report
    finally:
        lease.release()


def _register(origin: Pool, target: Pool, source: DataSource) -> list[str]:
    """Make a source known in the target, with a policy; returns what a person should know."""
    known = target.sources()
    if any(other.name == source.name and other.id != source.id for other in known):
        raise Refused(
            f"{target.storage.url} protects another data source called {source.name!r}; nothing of it was copied",
            code="name-taken",
            hint="copy into another pool: a name stands for one data source in each",
        )
    if all(other.id != source.id for other in known):
        records.copy_source(target.storage, target.keys, source)
    policy = read_policy(origin.storage, origin.keys, source.id)
    if policy is None or read_policy(target.storage, target.keys, source.id) is not None:
        return []
    unlockable = policy.lock and not target.storage.capabilities.immutable
    with contextlib.suppress(ObjectExists):
        target.set_policy(source.id, replace(policy, lock=policy.lock and not unlockable))
    return ["the retention policy was copied without its locks, which this storage cannot keep"] if unlockable else []


class _SourceCopying:
    def __init__(
        self,
        origin: Origin,
        target: Pool,
        source: DataSource,
        *,
        choice: Choice,
        options: CopyOptions,
        lease: WorkLease,
    ) -> None:
        self._origin = origin
        self._target = target
        self._source = source
        self._choice = choice
        self._options = options
        self._lease = lease
        self._streams = AheadStreams(origin.read, origin.read_many)
        self._others = AheadStreams(target.read_chunk, target.read_chunks)
        self._known = Translation()
        self._learned: set[int] = set()
        self._present = target.index.snapshot()
        self._coverage = Coverage(choice.held)
        self._report = SourceCopy(source, present=len(choice.common), left_out=list(choice.left_out))

    def run(self, numbers: frozenset[int] | None) -> SourceCopy:
        """Copy everything that was chosen."""
        for number in self._choice.unreadable:
            error = Damaged(f"the record of recovery point {number} cannot be read in the pool that is copied from")
            self._failed(f"recovery point #{number}", error)
        for step in self._choice.steps():
            if isinstance(step, RecoveryPoint):
                self._point(step)
            else:
                self._segment(step)
        self._holds(numbers)
        return self._report

    # --- points ---

    def _point(self, point: RecoveryPoint) -> None:
        self._learn_around(point.number)
        stage, total = f"{self._source.name} #{point.number}", 0

        def tick(done: int) -> None:
            self._lease.renew_if_due()
            self._options.progress(stage, done, total)

        traffic = Traffic()
        capture = self._target.capture_as(self._source.id, point.number)
        shipment = Shipment(
            self._origin, self._target, capture, traffic, self._options.verify, self._options.threads, tick
        )
        try:
            missing = needed_chunks(point, self._known, self._streams)
            total = self._origin.stored(missing)
            shipment.chunks(missing, self._known.data)
            copy = translated(point, self._known, self._streams, shipment)
            shipment.settle()
            self._lease.check()
            capture.commit_as(copy)
            self._report.copied.append(point.number)
        except DamagedOnArrival:
            raise
        except (Damaged, Refused) as error:
            if isinstance(error, Refused) and error.code not in ("point-exists", "copy-unfaithful"):
                raise
            # What is known by now is relied on by the next points, so it has to be durable.
            shipment.settle()
            self._not_copied(point, error)
        finally:
            self._report.shipped += capture.stored
            self._report.skipped += traffic.skipped
            capture.abort()

    def _not_copied(self, point: RecoveryPoint, error: PerdureError) -> None:
        """Say why a point was not copied: pruned, copied by somebody else, or damaged."""
        self._origin.must_be_there()
        if error.code == "point-exists":
            self._refuse_another(point)
            self._report.notes.append(f"another process copied recovery point #{point.number} at the same time")
        elif self._is_gone(point.number):
            self._report.notes.append(f"recovery point #{point.number} was deleted while it was copied")
        else:
            self._failed(f"recovery point #{point.number}", error)

    def _refuse_another(self, point: RecoveryPoint) -> None:
        name = records.point_name(self._source.id, point.number)
        try:
            there = records.read_point(self._target.storage, self._target.keys, name)
        except Damaged as error:
            self._failed(
                f"recovery point #{point.number}", Damaged(f"its record in the copy is damaged: {error.message}")
            )
            return
        if not same_point(point, there):
            raise diverged(self._source, self._target, f"recovery point {point.number} is another in each")

    def _is_gone(self, number: int) -> bool:
        pool = self._origin.pool
        name = records.point_name(self._source.id, number)
        return all(listed.name != name for listed in pool.storage.list(f"points/{self._source.id}"))

    def _learn_around(self, number: int) -> None:
        """Learn from the nearest points that both pools have; what older ones share with this one is read instead."""
        below = max((each for each in self._choice.common if each < number), default=None)
        above = min((each for each in self._choice.common if each > number), default=None)
        for each in (below, above):
            if each is None or each in self._learned:
                continue
            self._learned.add(each)
            point, other = self._choice.common[each]
            try:
                ids = learn(self._known, self._streams, point, self._others, other, present=self._there)
            except (Damaged, ObjectMissing) as error:
                self._report.notes.append(
                    f"recovery point #{each} could not be compared in both pools: {error.message}"
                )
                continue
            self._report.skipped += self._origin.stored(ids)

    def _there(self, ids: Ids) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self._present.rows(ids) >= 0
        return found

    # --- log ---

    def _segment(self, span: LogSpan) -> None:
        if self._coverage.covers(span):
            return
        try:
            made = self._copied_segment(span)
        except DamagedOnArrival:
            raise
        except (Damaged, ObjectMissing) as error:
            self._origin.must_be_there()
            after, last = span.after_place, span.last_place
            self._failed(f"log {span.generation}:{after} to {span.generation}:{last}", error)
            return
        self._lease.renew_if_due()
        if made is not None:
            self._coverage.add(made)
            self._report.log_segments += 1
            self._report.log_bytes += made.stored
            self._report.shipped += made.stored

    def _copied_segment(self, span: LogSpan) -> LogSpan | None:
        verify = self._options.verify
        try:
            made = copy_segment(self._source.id, self._origin, span, self._target, verify=verify)
        except ObjectMissing:
            # It was joined with others meanwhile, or pruned.
            wider = self._wider(span)
            if wider is None:
                return None
            made = copy_segment(self._source.id, self._origin, wider, self._target, verify=verify)
        self._options.progress(f"{self._source.name} log", span.stored, self._log_bytes)
        return made

    def _wider(self, span: LogSpan) -> LogSpan | None:
        for each in widest_first(self._origin.pool.spans(self._source.id)):
            if each.generation == span.generation and each.after_place <= span.after_place < each.last_place:
                return each
        return None

    @property
    def _log_bytes(self) -> int:
        return sum(span.stored for span in self._choice.log)

    # --- the rest ---

    def _holds(self, numbers: frozenset[int] | None) -> None:
        """Place the holds that the other pool lacks, on points that it has."""
        there = {point.number for point in self._target.points(self._source.id)}
        held = {hold.number for hold in self._target.holds(self._source.id)}
        for hold in self._origin.pool.holds(self._source.id):
            if hold.number in there - held and (numbers is None or hold.number in numbers):
                self._hold(hold)

    def _hold(self, hold: Hold) -> None:
        try:
            self._target.hold(hold)
        except NotFound:
            self._report.notes.append(f"recovery point #{hold.number} was deleted in the copy before it could be held")
        except Refused as error:
            if error.code != "already-held":
                self._failed(f"the hold on recovery point #{hold.number}", error)

    def _failed(self, what: str, error: PerdureError) -> None:
        self._report.failures.append(CopyFailure(what, error.code, error.message, error.hint))
