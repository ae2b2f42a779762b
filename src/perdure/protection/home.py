"""What perdure remembers on this machine: pools, sources, replica states, locks and activity.

Everything here can be rebuilt from the pools. Directories are 0700 and files 0600; every file is replaced
atomically and synced.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs

from perdure.model.errors import BadInput, NotFound, PerdureError, Refused
from perdure.model.points import DataSource
from perdure.model.replica import Replica, ReplicaState
from perdure.model.truncation import TruncationLedger

__all__ = ["Activity", "Holder", "Home", "KnownPool", "KnownSource"]

_Kept = TypeVar("_Kept")


class KnownPool(msgspec.Struct, frozen=True):
    """A pool that was used here: its id and where it lies."""

    id: str
    url: str


class KnownSource(msgspec.Struct, frozen=True):
    """A source that is protected from here, and the pool it is protected in."""

    id: str
    name: str
    workload: str
    location: str
    pool_id: str


class LagMs(msgspec.Struct, frozen=True):
    """Milliseconds from commit to durable over the last minute."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Activity(msgspec.Struct, frozen=True):
    """What ``watch`` is doing for one source; times in nanoseconds since 1970 UTC.

    Args:
        pid: The watching process.
        since_ns: When it began.
        last_position: The last durable log position, as text.
        last_commit_ns: Time of the last transaction seen.
        last_durable_ns: When the last segment became durable.
        lag_ms: Lag over the last minute.
        wal_bytes: Log waiting to be shipped, bytes.
        warning: What a person should look at; empty when all is well.
        next_express_full_ns: When the next express full is due.
        updated_ns: When this was written.
    """

    pid: int
    since_ns: int
    last_position: str = ""
    last_commit_ns: int = 0
    last_durable_ns: int = 0
    lag_ms: LagMs = msgspec.field(default_factory=LagMs)
    wal_bytes: int = 0
    warning: str = ""
    next_express_full_ns: int = 0
    updated_ns: int = 0


class Holder(msgspec.Struct, frozen=True):
    """Who holds a source's lock."""

    pid: int
    verb: str
    since_ns: int


class Home:
    """The directory ``PERDURE_HOME``.

    Args:
        root: The directory; made when it does not exist.

    Raises:
        PerdureError: It cannot be made (code ``home-unusable``).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._directory()

    @classmethod
    def from_environment(cls) -> Home:
        """The home that ``PERDURE_HOME`` names, else the user's data directory."""
        named = os.environ.get("PERDURE_HOME")
        return cls(Path(named) if named else Path(platformdirs.user_data_dir("perdure")))

    def cache_dir(self, pool_id: str) -> Path:
        """Where caches of a pool are kept; everything in it may be deleted."""
        return self._directory("cache", pool_id)

    # --- pools and sources -----------------------------------------------------------------------

    def pools(self) -> list[KnownPool]:
        return self._read(self.root / "pools.json", list[KnownPool]) or []

    def remember_pool(self, pool_id: str, url: str) -> None:
        """Note where a pool lies; a pool that moved is noted at its new place."""

        def with_pool(known: list[KnownPool]) -> list[KnownPool]:
            return [*(pool for pool in known if pool.id != pool_id), KnownPool(pool_id, url)]

        if KnownPool(pool_id, url) not in self.pools():
            self._change(self.root / "pools.json", list[KnownPool], with_pool)

    def sources(self) -> list[KnownSource]:
        return self._read(self.root / "sources.json", list[KnownSource]) or []

    def remember_source(self, source: DataSource, pool_id: str) -> None:
        """Note a source and the pool that protects it."""
        entry = KnownSource(source.id, source.name, source.workload, source.location, pool_id)

        def with_source(known: list[KnownSource]) -> list[KnownSource]:
            return [*(other for other in known if other.id != entry.id), entry]

        if entry not in self.sources():
            self._change(self.root / "sources.json", list[KnownSource], with_source)

    def find_source(self, name: str) -> KnownSource:
        """The source that people call ``name``.

        Raises:
            NotFound: There is none; the hint lists close names.
            BadInput: Several pools have one of this name.
        """
        known = self.sources()
        found = [source for source in known if source.name == name] or [s for s in known if s.id == name]
        if len(found) == 1:
            return found[0]
        if found:
            pools = ", ".join(sorted(source.pool_id for source in found))
            raise BadInput(
                f"{name!r} is protected in more than one pool ({pools}), so the name is not enough",
                code="ambiguous-source",
                hint="name it by its id: " + ", ".join(source.id for source in found),
            )
        names = sorted({source.name for source in known})
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"protected here: {', '.join(names) or 'nothing yet'}"
        raise NotFound(f"no data source is called {name!r}", code="source-not-found", hint=hint)

    # --- per source ------------------------------------------------------------------------------

    def replica(self, source_id: str) -> Replica:
        return self._read(self._file("replicas", source_id), Replica) or Replica()

    def save_replica(self, source_id: str, replica: Replica) -> None:
        self._write(self._file("replicas", source_id), replica)

    def activity(self, source_id: str) -> Activity | None:
        return self._read(self._file("activity", source_id), Activity)

    def ledger(self, source_id: str) -> TruncationLedger:
        """What an engine did to the log of a source, as far as it is known here."""
        return self._read(self._file("truncation", source_id), TruncationLedger) or TruncationLedger()

    def save_ledger(self, source_id: str, ledger: TruncationLedger) -> None:
        self._write(self._file("truncation", source_id), ledger)

    def attention(self, source_id: str) -> str:
        """What a person should look at of a source; empty if all is well."""
        return self._read(self._file("attention", source_id), str) or ""

    def note_attention(self, source_id: str, text: str) -> None:
        if text != self.attention(source_id):
            self._write(self._file("attention", source_id), text)

    def note_found(self, source_id: str, where: str, time_ns: int) -> None:
        """Note that a source was found in a pool; does nothing if its replica's state is known here."""
        if not self.replica(source_id).history:
            cause = f"found in the storage pool {where}; this machine does not protect it yet"
            self.save_replica(source_id, Replica().to(ReplicaState.INACTIVE, cause, time_ns))

    def save_activity(self, source_id: str, activity: Activity) -> None:
        """Note what ``watch`` is doing; not synced, since it is of no use after a crash."""
        self._write(self._file("activity", source_id), activity, durable=False)

    def upkeep_ns(self, pool_id: str) -> int:
        """When a pool was last pruned and cleaned by ``watch``, nanoseconds since 1970 UTC; 0 if never."""
        return self._read(self._file("upkeep", pool_id), int) or 0

    def note_upkeep(self, pool_id: str, time_ns: int) -> None:
        """Note that a pool was pruned and cleaned."""
        self._write(self._file("upkeep", pool_id), time_ns)

    @contextlib.contextmanager
    def lock(self, source_id: str, verb: str) -> Iterator[None]:
        """Hold a source against every other perdure process of this home.

        Raises:
            Refused: Another one holds it; code ``source-busy``, naming its pid and verb.
        """
        path = self._directory("locks") / f"{source_id}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._busy(path, source_id) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(Holder(os.getpid(), verb, time.time_ns())), 0)
            try:
                yield
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _busy(self, path: Path, source_id: str) -> Refused:
        holder = self._read(path, Holder)
        who = f"process {holder.pid} ({holder.verb})" if holder else "another perdure process"
        names = [source.name for source in self.sources() if source.id == source_id]
        return Refused(
            f"{(names or [source_id])[0]!r} is held by {who}; nothing was changed",
            code="source-busy",
            hint="wait for it, or stop it; 'perdure watch' does synchronizations and express fulls itself",
        )

    # --- files -----------------------------------------------------------------------------------

    def _directory(self, *parts: str) -> Path:
        path = self.root
        try:
            # One by one, since mkdir leaves the mode of parents to the umask.
            for each in (*reversed(self.root.parents), self.root):
                if not each.is_dir():
                    each.mkdir(exist_ok=True, mode=0o700)
            for part in parts:
                path = path / part
                path.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise PerdureError(
                f"perdure's home {self.root} cannot be used: {error.strerror}",
                code="home-unusable",
                hint="set PERDURE_HOME to a directory that you may write",
            ) from error
        return path

    def _file(self, kind: str, source_id: str) -> Path:
        return self._directory(kind) / f"{source_id}.json"

    def _read(self, path: Path, kind: type[_Kept]) -> _Kept | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if not data:
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise PerdureError(
                f"{path} is damaged ({error}); the pools are not affected",
                code="home-damaged",
                hint="move it away; what it held is rebuilt from the pools",
            ) from error

    def _change(self, path: Path, kind: type[_Kept], change: Callable[[_Kept], _Kept]) -> None:
        """Read, change and replace a file that several processes may change at once."""
        with open(self.root / ".changing", "ab", opener=_private) as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            known = self._read(path, kind)
            self._write(path, change(known if known is not None else msgspec.json.decode(b"[]", type=kind)))

    def _write(self, path: Path, content: object, *, durable: bool = True) -> None:
        data = msgspec.json.format(msgspec.json.encode(content), indent=1)
        # mkstemp makes the file 0600.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if durable:
            _sync_directory(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
