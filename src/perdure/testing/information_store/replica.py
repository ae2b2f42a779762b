"""A passive copy of a database: closed logs arrive, are inspected, and are replayed onto its file, at once or later."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from perdure.ese.chain import join_logs
from perdure.ese.errors import EseDamaged
from perdure.ese.findings import damage_in
from perdure.ese.logs.files import read_log
from perdure.snapshots.writer import Blocker, BlockerKind, CopyRole, DatabaseCopy
from perdure.testing.information_store.engine import CLEAN, Engine
from perdure.testing.information_store.header_fields import DatabaseFields, time_of
from perdure.testing.information_store.layout import DatabasePlace
from perdure.testing.information_store.redo_in_place import redo_in_place, write_fields
from perdure.testing.information_store.stream_end import closed_logs

__all__ = ["Replica"]


@dataclass(eq=False, repr=False)
class Replica:
    """One copy.

    Args:
        node: Name of the node that it is on.
        folder: That node's folder.
        place: Where database and log lie below it.
        page_size: Of the database.
        lag_s: Seconds by which replay stays behind.
        inspected: Highest generation that arrived and was found sound.
        replayed: Highest generation in the database.
        failure: Why it cannot go on, empty while it can.
    """

    node: str
    folder: Path
    place: DatabasePlace
    page_size: int
    lag_s: float = 0.0
    inspected: int = 0
    replayed: int = 0
    failure: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while its files change, and while they are frozen."""

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / self.place.file

    @property
    def log_folder(self) -> Path:
        return self.folder / self.place.log_folder

    @property
    def role(self) -> CopyRole:
        return CopyRole.LAGGED if self.lag_s else CopyRole.PASSIVE

    @property
    def healthy(self) -> bool:
        return not self.failure

    def fields(self) -> DatabaseFields:
        """The header of its database."""
        return Engine.read_fields(self.path, self.page_size)

    def logs(self) -> dict[int, Path]:
        """Its logs by generation."""
        return closed_logs(self.log_folder, self.place.base)

    def receive(self, shipped: dict[int, Path]) -> None:
        """Copy closed logs of the active copy that are not here yet, and inspect each."""
        with self.lock:
            while self.healthy and self.inspected + 1 in shipped:
                source = shipped[self.inspected + 1]
                arriving = self.log_folder / f"{source.name}.arriving"
                shutil.copyfile(source, arriving)
                target = self.log_folder / source.name
                arriving.rename(target)
                self._inspect(target)
            ahead = [generation for generation in shipped if generation > self.inspected + 1]
            if self.healthy and ahead and self.inspected + 1 not in shipped:
                self.failure = f"log {self.inspected + 1:X} was deleted before it was shipped"

    def replay(self, now: datetime) -> None:
        """Replay what was inspected, up to where the lag allows."""
        with self.lock:
            if not self.healthy:
                return
            logs = self.logs()
            until = max((number for number, path in logs.items() if self._is_due(path, now)), default=0)
            self.replay_until(min(until, self.inspected))

    def replay_until(self, generation: int, extra: Path | None = None) -> None:
        """Replay up to a generation; ``extra`` is the log behind it, which need not be full."""
        with self.lock:
            if (generation <= self.replayed and extra is None) or not self.path.exists():
                return
            fields = self.fields()
            if fields.state != CLEAN and generation < fields.max_committed and extra is None:
                return  # it was seeded with changes of logs that are still to come
            logs = [path for number, path in self.logs().items() if number <= generation]
            try:
                redo_in_place(self.path, [*logs, *([extra] if extra is not None else [])], self.page_size)
            except EseDamaged as error:
                self.failure = error.message
                return
            self.replayed = max(generation, self.replayed) + (1 if extra is not None else 0)

    def truncate(self, below: int) -> None:
        """Delete logs that neither this copy nor a backup needs any more."""
        with self.lock:
            fields = self.fields()
            needed = self.replayed + 1 if fields.state == CLEAN else fields.min_required
            for generation, path in self.logs().items():
                if generation < min(below, needed):
                    path.unlink()

    def blocker(self) -> Blocker:
        """What it holds back: a log must have been replayed here, or inspected if this copy lags."""
        if self.lag_s:
            return Blocker(BlockerKind.LAGGED_COPY, self.inspected + 1, self.node)
        return Blocker(BlockerKind.COPY_NOT_REPLAYED, self.replayed + 1, self.node)

    def described(self) -> DatabaseCopy:
        """As other nodes describe it."""
        return DatabaseCopy(
            node=self.node,
            folder=str(self.folder),
            database_path=str(self.path),
            log_folder=str(self.log_folder),
            role=self.role,
            replayed_generation=self.replayed,
            inspected_generation=self.inspected,
            replay_lag_s=self.lag_s,
            healthy=self.healthy,
        )

    def remove(self) -> None:
        """Delete its database and logs."""
        with self.lock:
            self.path.unlink(missing_ok=True)
            for path in self.log_folder.glob(f"{self.place.base}*"):
                path.unlink()

    def stamp(self, fields: DatabaseFields) -> None:
        """Change its header."""
        with self.lock:
            write_fields(self.path, fields)

    def _inspect(self, path: Path) -> None:
        log = read_log(path)
        before = self.logs().get(self.inspected)
        known = [read_log(before)] if before is not None else []
        damage = [*damage_in(log.findings), *damage_in(join_logs([*known, log]).findings)]
        if damage or not log.readable:
            self.failure = str(damage[0]) if damage else f"{path.name} cannot be read"
            return
        assert log.generation is not None
        self.inspected = log.generation

    def _is_due(self, path: Path, now: datetime) -> bool:
        if not self.lag_s:
            return True
        header = read_log(path).header
        assert header is not None
        return time_of(header.created.raw) + timedelta(seconds=self.lag_s) <= now
