"""A session on a mailbox database: follows its log stream, ships complete logs, takes images, reports backups.

Log is shipped from the active copy as long as it has it, since it decides which log is the right one; images are taken
from a passive copy where there is one. Nothing is ever deleted here: the engine does that when it hears that a backup
is complete, and it hears so only after the recovery point is committed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

import msgspec

from perdure.ese.headers.log import LogHeader
from perdure.ese.structures import Signature
from perdure.model.errors import SourceUnusable, TrackingLost
from perdure.model.logs import LogEnd, LogSegment
from perdure.model.positions import Position
from perdure.model.truncation import TruncationLedger
from perdure.workloads.contract import BaseImage, Image
from perdure.workloads.exchange.advice import advice_for
from perdure.workloads.exchange.copies import StoreCopy, Survey, survey
from perdure.workloads.exchange.freezing import remove_snapshots
from perdure.workloads.exchange.imaging import TakenImage, take_image
from perdure.workloads.exchange.next_logs import BATCH, header_after, next_logs, when_ended, why_altered
from perdure.workloads.exchange.options import SourceOptions
from perdure.workloads.exchange.shipping import Break, LogFile, ShippedLog, ship_log, why_not_next
from perdure.workloads.exchange.tokens import StreamToken, decode_token
from perdure.workloads.exchange.truncating import Truncation
from perdure.workloads.exchange.watching import circular_now, things_to_know, why_broken

__all__ = ["ExchangeSession"]

_AHEAD = 2
"""Batches of log that are read while one becomes durable, each by a thread of its own."""

_LOOK_EVERY_S = 1.0
_SURVEY_EVERY_S = 10.0


class ExchangeSession:
    """Implements :class:`perdure.workloads.contract.Session` and ``BackupSession``.

    Args:
        options: What is protected, and how.
        clock: Nanoseconds since 1970 UTC.

    Attributes:
        ledger: What the engine did to its log.
        warning: What a person should look at; empty if all is well.

    Raises:
        SourceUnusable: No copy of the database can be read.
    """

    def __init__(self, options: SourceOptions, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._options, self._clock = options, clock
        self._survey: Survey = survey(options.folders, options.database)
        self._token: StreamToken | None = None
        self._end = Position(0, 0)
        self._offset = 0
        self._anew = False
        self._pending: ShippedLog | None = None
        self._taken: TakenImage | None = None
        self._truncation = Truncation(options, clock)
        self._looked = self._surveyed = time.monotonic()
        self.warning = ""
        for copy in self._survey.copies:
            remove_snapshots(copy.database, options.snapshot_folder)

    def __enter__(self) -> ExchangeSession:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    @property
    def ledger(self) -> TruncationLedger:
        return self._truncation.ledger

    @ledger.setter
    def ledger(self, ledger: TruncationLedger) -> None:
        self._truncation.ledger = ledger

    @property
    def wal_bytes(self) -> int:
        """Bytes of complete log that wait to be shipped."""
        waiting = self._waiting()
        return waiting << 20

    # --- following ---------------------------------------------------------------------------------

    def resume(self, end: LogEnd | None) -> None:
        self._token, self._offset, self._anew = None, 0, False
        if end is None:
            return
        self._end = end.position
        token = decode_token(end.chain)
        if token is None:
            self._lose(Break("the pool's log of this source is not of an Exchange database", code="tracking-lost"))
        self._offset = token.offset
        self._take_survey(Signature(token.database), token)
        self._check_unbroken(token)
        self._explain()

    def poll(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            self._look(now)
        return self._waiting() > 0

    def _waiting(self) -> int:
        """How many complete logs are to be shipped, as far as a glance tells: 1 if the next one is there."""
        token = self._token
        if token is None or token.images_only:
            return 0
        return int(
            any(copy.logs is not None and copy.logs.holds(token.next_generation) for copy in self._survey.copies)
        )

    def _look(self, now: float) -> None:
        """See whether the database is still what it was, and its log goes on."""
        token = self._token
        if now - self._surveyed >= _SURVEY_EVERY_S or any(not copy.database.exists() for copy in self._survey.copies):
            self._take_survey(None if token is None else Signature(token.database), token)
        if token is not None:
            self._check_unbroken(token)
        self._explain()

    def _take_survey(self, identity: Signature | None, token: StreamToken | None) -> None:
        try:
            found = survey(self._options.folders, self._options.database, identity)
        except SourceUnusable:
            if identity is None:
                raise
            # Another database of that name may lie there now; then that is what is wrong.
            found = survey(self._options.folders, self._options.database)
        self._survey, self._surveyed = found, time.monotonic()
        self._truncation.look_at(found)
        if token is not None:
            broken = why_broken(found, token)
            if broken is not None:
                self._lose(broken)

    def _check_unbroken(self, token: StreamToken) -> None:
        broken = why_broken(self._survey.refreshed(), token)
        if broken is not None:
            self._lose(broken)
        active = self._survey.active
        if token.images_only and active is not None and not circular_now(active):
            # The engine keeps its log again, and what it has leads on from the last image.
            token = msgspec.structs.replace(token, images_only=False)
        self._token = token

    def _explain(self) -> None:
        self.warning = "; ".join(things_to_know(self._survey, self._options, self._truncation.ledger))

    # --- shipping ----------------------------------------------------------------------------------

    def log(self) -> Iterator[LogSegment]:
        for run in self.log_runs():
            yield from run

    def log_runs(self) -> Iterator[Sequence[LogSegment]]:
        """As in ``RunningSession``: up to :data:`BATCH` complete logs at a time, the next ones read meanwhile."""
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read-log") as beside:
            ahead: deque[Future[list[tuple[LogFile, StoreCopy]]]] = deque()
            while self._token is not None and not self._token.images_only:
                frozen = self._frozen_log()
                if frozen is not None:
                    yield from self._ship(frozen, closed=False, ends_ns=self._taken.time_ns if self._taken else 0)
                    continue
                first = self._token.next_generation
                database = Signature(self._token.database)
                batch = ahead.popleft().result() if ahead else self._read_batch(first, database)
                if not batch:
                    # Either all is shipped, or the next log is not there although the stream went on.
                    self._check_unbroken(self._token)
                    return
                until = self._frozen_generation()
                if until is not None:
                    batch = batch[: until - first]
                if until is not None or len(batch) < BATCH:
                    # What was read ahead begins behind a whole batch.
                    ahead.clear()
                else:
                    while len(ahead) < _AHEAD:
                        ahead.append(beside.submit(self._read_batch, first + (len(ahead) + 1) * BATCH, database))
                yield from self._ship_batch(batch)

    def _read_batch(self, first: int, database: Signature) -> list[tuple[LogFile, StoreCopy]]:
        return next_logs(self._survey.for_log(), first, database)

    def _frozen_generation(self) -> int | None:
        """The generation whose log has to be shipped as it was when the image was frozen, if that is still to come."""
        taken, token = self._taken, self._token
        if taken is None or token is None or taken.frozen is None or taken.token.position <= token.position:
            return None
        generation = taken.frozen.header.generation
        return generation if generation >= token.next_generation else None

    def _frozen_log(self) -> LogFile | None:
        """The log that was being written when the image was frozen, if it is what has to be shipped next."""
        assert self._token is not None
        due = self._frozen_generation() == self._token.next_generation
        return self._taken.frozen if due and self._taken is not None else None

    def _ship_batch(self, batch: list[tuple[LogFile, StoreCopy]]) -> Iterator[Sequence[LogSegment]]:
        """Ship complete logs as one run; those before one that is broken are shipped before it is reported."""
        assert self._token is not None
        token, ready, broken = self._token, list[ShippedLog](), None
        for row, (first_choice, copy) in enumerate(batch):
            after = header_after(first_choice, batch[row + 1][0] if row + 1 < len(batch) else None, copy)
            broken = self._why_unusable(token, first_choice, after)
            file = first_choice if broken is None else self._from_other_copies(token, copy)
            if file is None:
                break
            assert copy.logs is not None
            broken = None
            ready.append(ship_log(token, file, copy.logs, closed=True, ends_ns=when_ended(file, after)))
            token = ready[-1].token
        yield from self._run(ready)
        if broken is not None:
            self._lose(broken)

    def _why_unusable(self, token: StreamToken, file: LogFile, after: LogHeader | None) -> Break | None:
        """Why a log cannot be the next one in the pool."""
        broken = why_not_next(token, file)
        if broken is not None or not self._options.checks_logs:
            return broken
        damage = file.problem or why_altered(file, after)
        return Break(f"{damage}; no recovery can pass a log that is damaged", code="log-damaged") if damage else None

    def _from_other_copies(self, token: StreamToken, refused: StoreCopy) -> LogFile | None:
        """The same log from another copy, if it continues what the pool has there."""
        for copy in self._survey.for_log():
            if copy is refused:
                continue
            for file, _ in next_logs([copy], token.next_generation, Signature(token.database), most=1):
                if self._why_unusable(token, file, header_after(file, None, copy)) is None:
                    return file
        return None

    def _ship(self, file: LogFile, *, closed: bool, ends_ns: int) -> Iterator[Sequence[LogSegment]]:
        assert self._token is not None
        copy = next(copy for copy in self._survey.for_log())
        assert copy.logs is not None
        broken = why_not_next(self._token, file)
        if broken is not None:
            self._lose(broken)
        yield from self._run([ship_log(self._token, file, copy.logs, closed=closed, ends_ns=ends_ns)])

    def _run(self, ready: list[ShippedLog]) -> Iterator[Sequence[LogSegment]]:
        if not ready:
            return
        self._pending = ready[-1]
        segments = [one.segment for one in ready if one.segment is not None]
        if segments:
            yield segments
        # Asked for more: the contract says that this is durable now.
        self._advance()

    def acknowledge(self, position: Position) -> None:
        if self._pending is not None and self._pending.token.position <= position:
            self._advance()
        taken = self._taken
        if self._token is None and taken is not None and taken.token.position == position:
            self._token, self._offset, self._anew = taken.token, taken.token.offset, False
            self._end = position

    def _advance(self) -> None:
        if self._pending is not None:
            self._token = self._pending.token
            self._end = max(self._end, self._token.position)
            self._truncation.durable(self._token)
            self._pending = None

    def maintain(self, ship: Callable[[LogSegment], None]) -> None:
        if self._token is None or self._taken is not None:
            return

        def ship_all() -> StreamToken | None:
            for segment in self.log():
                ship(segment)
                self.acknowledge(segment.last)
            return self._token

        self._truncation.maintain(self._survey, self._token, ship_all)

    # --- images ------------------------------------------------------------------------------------

    @contextmanager
    def image(self, base: BaseImage | None) -> Iterator[Image]:
        self._take_survey(None if self._token is None else Signature(self._token.database), self._token)
        with take_image(
            self._survey,
            self._options,
            base if self._token is not None else None,
            token=self._token,
            beyond=self._end if self._anew else None,
            offset=self._offset,
            ledger=self._truncation.ledger,
            clock=self._clock,
        ) as taken:
            self._taken = taken
            self._truncation.awaits(taken)
            try:
                yield taken.image
            finally:
                self._taken = None

    def start_anew(self) -> None:
        self._token, self._pending, self._anew = None, None, True

    def complete_image(self, image: Image) -> None:
        taken = self._taken
        assert taken is not None
        assert image is taken.image
        assert self._token is not None
        self._truncation.image_is_durable(taken, self._token)
        active = self._survey.active
        if active is not None:
            self._truncation.active_was(active.node)
        self._explain()

    def _lose(self, broken: Break) -> NoReturn:
        self.start_anew()
        raise TrackingLost(
            f"{broken.cause}. What to do: {advice_for(broken.code)}",
            code=broken.code,
            hint="the next express full compares the replica with the source",
        )
