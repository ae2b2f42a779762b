"""A live database under protection: its session held open, its log shipped, its images made."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import ImageFailed, Refused, TrackingLost
from perdure.model.logs import LogSegment, StoredSegment
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.replica import ReplicaState
from perdure.model.timeline import Timeline
from perdure.protection.backup_reports import BackupReports
from perdure.protection.building import newest_image
from perdure.protection.image_restore import read_file
from perdure.protection.live_results import Checked, Shipped
from perdure.protection.page_heads import page_heads
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected
from perdure.protection.storing import Stored, by_comparing, by_tracking, compare_image, store_image
from perdure.workloads.contract import (
    BackupSession,
    BaseImage,
    Image,
    LayoutSession,
    MovingImage,
    RunningSession,
    Session,
)

__all__ = ["Checked", "LiveSource", "Shipped"]

_Result = TypeVar("_Result")

POLL_S = 0.01
"""How often a source is polled while an image of it is being stored."""

SHIP_S = 0.5
"""How often its log is shipped meanwhile."""


class LiveSource:
    """A session with what the pool holds of its source.

    Attributes:
        lost: Why the replica must be compared before log can be shipped again; empty when tracking is whole.
        doubt: Why the replica must be compared although its log goes on, such as a check that was killed; empty if it
            need not be.

    Args:
        protected: The source.
        session: Its open session, not yet resumed.
        on_shipped: Told of every segment that became durable.
    """

    def __init__(
        self, protected: Protected, session: Session, on_shipped: Callable[[Shipped], None] = lambda _: None
    ) -> None:
        self.protected = protected
        self.session = session
        self.lost = self.doubt = ""
        self._on_shipped = on_shipped
        self._segments: Iterator[Sequence[LogSegment]] | None = None
        self._undurable: Sequence[LogSegment] | None = None
        self._shipped_at = time.monotonic()
        self._reports = BackupReports(protected, session)

    # --- beginning -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Continue after what the pool holds; notes when that is not possible and a comparison is due.

        Only the session says whether the log goes on: what a process knew when it was killed nobody else knows, so a
        session proves it from what is there. A replica that has to be compared is no reason to break the log.
        """
        protected, vault = self.protected, self.protected.vault
        end, newest = vault.log_end(protected.source.id), self.newest_image()
        state = protected.replica.state
        if newest is not None and state in (ReplicaState.UNPROTECTED, ReplicaState.INITIALIZING):
            protected.note_state(ReplicaState.OK, f"found recovery point {newest.number} in the pool")
        try:
            self.session.resume(end)
        except TrackingLost as error:
            self.lose(error.message)
            return
        if newest is None:
            return
        if end is not None and newest.position is not None and not self._joined(newest.position, end.position):
            self.lose(f"the log in the pool does not lead from {newest.position} to {end.position}")
        elif owed := protected.replica.owed_comparison:
            self.doubt = owed
            if state is ReplicaState.MISSING:
                protected.note_state(ReplicaState.INCONSISTENT, owed)
        elif state is not ReplicaState.OK:
            protected.note_state(ReplicaState.OK, "the source is here and its log continues")

    def lose(self, cause: str) -> None:
        """Note that the log is broken: the next image is compared, and until then nothing is shipped."""
        self.lost = cause
        self._segments = None
        self._undurable = None
        self._start_anew()
        self.protected.note_state(ReplicaState.INCONSISTENT, cause)

    def recall(self, losses: Sequence[str]) -> None:
        """Heed why the sessions before this one ended.

        After one loss the session is believed when it says that the log goes on. After two in a row it is not: what
        breaks the log was found only while it was shipped.
        """
        if len(losses) > 1 and not self.lost:
            self.lose(losses[-1])
        elif losses and self.lost and losses[-1] not in self.lost:
            self.lose(f"{losses[-1]}; {self.lost}")

    @property
    def must_compare(self) -> bool:
        """Whether the next image has to be compared with the replica."""
        return bool(self.lost or self.doubt)

    def newest_image(self) -> RecoveryPoint | None:
        """The image at the farthest position; of several there the newest."""
        return newest_image(self.protected.vault.points(self.protected.source.id))

    def _joined(self, image: Position, end: Position) -> bool:
        vault, source = self.protected.vault, self.protected.source.id
        return Timeline((), vault.spans(source), lambda span: vault.segment(source, span)).continues(image, end)

    # --- log -------------------------------------------------------------------------------------

    def ship(self) -> Shipped:
        """Make all log durable that was committed until now, and acknowledge it.

        What failed to be written is kept and written first at the next call.

        Raises:
            TrackingLost: The source was replaced or its log cut off.
            SourceUnusable: It is gone.
            PoolUnusable: The pool takes nothing; nothing of the rest is acknowledged.
        """
        self.session.poll()
        self._shipped_at = time.monotonic()
        done = Shipped()
        if self.lost:
            return done
        if self._segments is None:
            self._segments = self._runs()
        while True:
            if self._undurable is None:
                self._undurable = next(self._segments, None)
            if self._undurable is None:
                self._segments = None
                self._reports.keep()
                return done
            done = done.joined(self._make_durable(self._undurable))
            self._undurable = None

    def maintain(self) -> None:
        """Let the source recycle its log when that is due."""
        if not self.lost and self._undurable is None:
            self.session.maintain(self._ship_one)
            self._reports.keep()

    def report_backup(self) -> None:
        """Tell an engine that truncates its own log what is durable. Other log is recycled only under a lasting hold:
        without one its next restart would lose what comes after.
        """
        if isinstance(self.session, BackupSession):
            self.maintain()

    def _runs(self) -> Iterator[Sequence[LogSegment]]:
        """The session's log in runs that are made durable together."""
        if isinstance(self.session, RunningSession):
            yield from self.session.log_runs()
            return
        for segment in self.session.log():
            yield (segment,)

    def _ship_one(self, segment: LogSegment) -> None:
        self._make_durable((segment,))

    def _make_durable(self, run: Sequence[LogSegment]) -> Shipped:
        if len(run) == 1:
            self.protected.vault.append(self.protected.source.id, run[0])
        else:
            self.protected.vault.append_run(self.protected.source.id, run)
        durable_ns = time.time_ns()
        self.session.acknowledge(run[-1].last)
        times = np.concatenate([segment.marks["time_ns"] for segment in run])
        shipped = Shipped(
            len(run),
            len(times),
            sum(len(block) for segment in run for block in segment.blocks),
            run[-1].last,
            int(times.min()) if len(times) else durable_ns,
            int(times.max()) if len(times) else durable_ns,
            durable_ns,
            tuple((durable_ns - times).tolist()),
        )
        self._on_shipped(shipped)
        return shipped

    # --- images ----------------------------------------------------------------------------------

    def express_full(
        self, cause: str, progress: Progress = quiet, meanwhile: Callable[[], None] | None = None
    ) -> Stored:
        """Ship the log, then store what changed since the last image, or compare when that is not known.

        Args:
            cause: Why the point is made; replaced by the loss when tracking was lost.
            progress: Told of the bytes.
            meanwhile: Called about every 10 ms in this thread while another one stores the image.
        """
        self._ship_or_drain()
        previous = self.newest_image()
        lost, doubt = self.lost, self.doubt
        if self.must_compare and previous is not None:
            cause = f"tracking lost: {lost}" if lost else _check_because(doubt)
            self.protected.note_state(ReplicaState.VERIFYING, cause)
        vault, source = self.protected.vault, self.protected.source.id
        inconsistent_ns = self.protected.inconsistent_ns(previous)
        keeps_layout = not lost or isinstance(self.session, LayoutSession)
        base = (
            self._base(previous, tracked=not lost, whole=self.must_compare)
            if previous is not None and keeps_layout
            else None
        )
        with self._noting_failure("the express full"), self.session.image(base) as image:
            self._ship_before_commit()
            stored = self._beside(
                lambda report: store_image(
                    vault,
                    source,
                    image,
                    previous,
                    find=by_comparing(vault, report) if doubt else by_tracking(vault, report),
                    cause=cause,
                    inconsistent_ns=inconsistent_ns,
                    progress=report,
                ),
                progress,
                meanwhile,
            )
            self.lost = self.doubt = ""
            if lost or isinstance(self.session, BackupSession):
                self.session.acknowledge(image.position)
            if isinstance(self.session, BackupSession):
                # What was completed meanwhile counts as backed up too when the engine hears that the backup is.
                self.ship()
                self._reports.complete(image)
        if lost or self.protected.replica.state is not ReplicaState.OK:
            self.protected.note_state(ReplicaState.OK, stored.point.cause)
        return stored

    def check(self, progress: Progress = quiet) -> Checked:
        """Compare source and replica at one position and repair the replica."""
        if self.lost:
            stored = self.express_full("consistency check", progress)
            sizes = {file.name: file.page_size for file in stored.point.files}
            return Checked(dict(stored.found), sizes, stored.point, stored.point.read)
        self.ship()
        previous = self.newest_image()
        if previous is None:
            raise Refused(
                "there is no replica yet to check", code="no-replica", hint="run 'perdure express-full' first"
            )
        self.protected.note_state(ReplicaState.VERIFYING, "consistency check")
        with (
            self._noting_failure("the consistency check"),
            self.session.image(self._base(previous, whole=True)) as image,
        ):
            self._ship_before_commit()
            compared = self._compared_moving if isinstance(image, MovingImage) else self._compared
            checked = self._beside(lambda report: compared(image, previous, report), progress, None)
        pages = sum(len(found.pages) for found in checked.found.values())
        self.doubt = ""
        outcome = f"consistency check repaired {pages} pages" if pages else "consistency check found no difference"
        self.protected.note_state(ReplicaState.OK, outcome)
        return checked

    def _compared(self, image: Image, point: RecoveryPoint, progress: Progress) -> Checked:
        vault, source = self.protected.vault, self.protected.source.id
        sizes = {reader.name: reader.page_size for reader in image.files}
        read = 0
        if image.position != point.position:
            point = store_image(
                vault,
                source,
                image,
                point,
                find=by_tracking(vault, progress),
                cause="consistency check",
                inconsistent_ns=self.protected.inconsistent_ns(point),
                progress=progress,
            ).point
            read += point.read
        found = compare_image(vault, image, point, progress)
        read += sum(part.read for part in found.values())
        pages = sum(len(part.pages) for part in found.values())
        if not pages:
            return Checked(found, sizes, None, read)
        cause = f"consistency check repaired {pages} pages"
        repair = store_image(
            vault,
            source,
            image,
            point,
            find=lambda reader, _: found[reader.name],
            cause=cause,
            inconsistent_ns=self.protected.inconsistent_ns(point),
            progress=progress,
        )
        return Checked(found, sizes, repair.point, read)

    def _compared_moving(self, image: Image, point: RecoveryPoint, progress: Progress) -> Checked:
        """One pass: what differs is stored at once, and then told apart from what the log says to have changed."""
        assert isinstance(image, MovingImage)
        vault, source = self.protected.vault, self.protected.source.id
        stored = store_image(
            vault,
            source,
            image,
            point,
            find=by_comparing(vault, progress),
            cause="consistency check",
            inconsistent_ns=self.protected.inconsistent_ns(point),
            progress=progress,
        )
        found = {name: replace(part, pages=image.unexplained(name, part.pages)) for name, part in stored.found.items()}
        sizes = {file.name: file.page_size for file in stored.point.files}
        differed = any(len(part.pages) for part in found.values())
        return Checked(found, sizes, stored.point if differed else None, stored.point.read)

    def _ship_or_drain(self) -> None:
        """Bring the session's log to its end: into the pool, or past it when no image there leads to it."""
        self.ship()
        if self.lost and not self._start_anew():
            for _ in self.session.log():
                continue

    def _start_anew(self) -> bool:
        """Let the session forget its log, if it can."""
        if not isinstance(self.session, BackupSession | LayoutSession):
            return False
        self.session.start_anew()
        return True

    def _ship_before_commit(self) -> None:
        """Make durable what leads to an image that may have been frozen after the log was last shipped."""
        if isinstance(self.session, BackupSession) and not self.lost:
            self.ship()

    def _base(self, point: RecoveryPoint, *, tracked: bool = True, whole: bool = False) -> BaseImage:
        vault, source = self.protected.vault, self.protected.source.id
        after = point.position or Position(0, 0)

        def log() -> Iterable[StoredSegment]:
            return vault.segments_between(source, after, None)

        def content(name: str) -> bytes:
            return read_file(vault, next(file for file in point.files if file.name == name))

        def heads(name: str, pages: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
            return page_heads(vault, next(file for file in point.files if file.name == name), pages, length)

        sizes = {file.name: file.size for file in point.files}
        page_sizes = {file.name: file.page_size for file in point.files}
        return BaseImage(after, sizes, page_sizes, log, content, heads, tracked, whole)

    def _keep_shipping(self) -> None:
        if time.monotonic() - self._shipped_at >= SHIP_S:
            self.ship()
        else:
            self.session.poll()

    def _beside(
        self, work: Callable[[Progress], _Result], progress: Progress, meanwhile: Callable[[], None] | None
    ) -> _Result:
        """Do work that only reads the image in another thread, while this one goes on with the log."""
        stopped = threading.Event()

        def report(stage: str, done: int, total: int, /) -> None:
            if stopped.is_set():
                raise TrackingLost("the source was lost while its image was stored", code="image-abandoned")
            progress(stage, done, total)

        go_on = meanwhile or self._keep_shipping
        with ThreadPoolExecutor(1, thread_name_prefix="image") as beside:
            future = beside.submit(work, report)
            try:
                while not wait([future], timeout=POLL_S).done:
                    go_on()
            except BaseException:
                stopped.set()
                raise
            return future.result()

    @contextlib.contextmanager
    def _noting_failure(self, what: str) -> Iterator[None]:
        """An interrupted comparison leaves the replica to be compared again."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, ImageFailed):
                self._reports.failed(what, error)
            if self.protected.replica.state is ReplicaState.VERIFYING:
                self.protected.note_state(ReplicaState.INCONSISTENT, f"{what} did not finish: {error}")
            raise


def _check_because(doubt: str) -> str:
    """The cause of a point that compares once more."""
    return doubt if doubt.startswith("consistency check") else f"consistency check: {doubt}"
