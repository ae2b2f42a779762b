"""Processes that stop before each call to their storage, so that a test decides in which order calls happen.

An activity runs in a thread of its own, but only while the test waits for it: at every moment one thread runs, and a
run is the same for the same decisions. An activity that is killed stops where it is: none of its calls, also none that
its handlers make while it falls apart, reaches the storage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from perdure.storage.contract import Buffer, Capabilities, Lease, LeaseInfo, ObjectInfo, Pending, Storage
from perdure.testing.hooked_storage import HookedStorage

__all__ = ["Activity", "Died", "ProcessStorage", "Stop"]

Stop = int | str | None
"""Where an activity stops: after so many calls, before the next call that begins like this, or at its end."""


class Died(BaseException):
    """The process of this activity was killed."""


class Activity:
    """Work that can be driven step by step.

    Args:
        what: What it is, for the reader of a failure.
        work: The work.
    """

    def __init__(self, what: str, work: Callable[[], object]) -> None:
        self.what = what
        self.at = "its beginning"
        self.done = False
        self.killed = False
        self.failure: BaseException | None = None
        self._work = work
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def go_on(self, stop: Stop) -> None:
        """Let it go on until it has to stop."""
        if stop is None:
            self.finish()
        elif isinstance(stop, str):
            self.advance_to(stop)
        else:
            self.advance(stop)

    def advance(self, steps: int) -> None:
        """Let it make so many calls, and stop it before the next."""
        for _ in range(steps):
            if self.done:
                return
            self._go.release()
            self._stopped.acquire()

    def advance_to(self, call: str) -> None:
        """Let it go on, by one call at least, and stop it before the next call that begins like this."""
        self.advance(1)
        while not self.done and not self.at.startswith(call):
            self.advance(1)

    def finish(self) -> None:
        """Let it come to its end."""
        while not self.done:
            self.advance(1)

    def kill(self) -> None:
        """End it where it is."""
        self.killed = True
        self.finish()

    def pause(self, at: str) -> None:
        """Called by the work itself: stop until the test goes on.

        Raises:
            Died: It is killed.
        """
        if threading.current_thread() is self._thread and not self.killed:
            self.at = at
            self._stopped.release()
            self._go.acquire()
        if self.killed:
            raise Died(self.what)

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                self._work()
        except BaseException as error:  # noqa: BLE001 - judged by whoever drives the activity
            self.failure = error
        self.done = True
        self._stopped.release()


class _ProcessLease:
    def __init__(self, storage: ProcessStorage, inner: Lease) -> None:
        self._storage = storage
        self.inner = inner

    def renew(self) -> None:
        self._storage.pause("renew a lease")
        self.inner.renew()

    def release(self) -> None:
        if not self._storage.dead:
            self._storage.pause("release a lease")
            self._storage.held.discard(self)
            self.inner.release()


class ProcessStorage(HookedStorage):
    """A storage as one process sees it; listings come in pages, and what deletes many deletes one after the other.

    Args:
        inner: The storage.
        liveness: Whether leases end with the process that holds them.
        changed: Told of each object that appeared (``True``) or went.
        modified_ns: When each object was written; shared by all processes.
        clock_ns: The storage's clock.
    """

    PAGE = 5

    def __init__(
        self,
        inner: Storage,
        *,
        liveness: bool,
        changed: Callable[[str, bool], None],
        modified_ns: dict[str, int],
        clock_ns: Callable[[], int],
    ) -> None:
        super().__init__(inner, lambda method, names: self.pause(" ".join([method, *names])))
        self.activity: Activity | None = None
        self.held: set[_ProcessLease] = set()
        self._liveness = liveness
        self._changed = changed
        self._modified_ns = modified_ns
        self._clock_ns = clock_ns

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=self.inner.capabilities.local, liveness=self._liveness)

    @property
    def dead(self) -> bool:
        """Whether what uses it was killed."""
        return self.activity is not None and self.activity.killed

    def pause(self, at: str) -> None:
        """Let others go on."""
        if self.activity is not None:
            self.activity.pause(at)

    def end(self) -> None:
        """The process ends: where that can be seen, its leases end with it."""
        if self._liveness:
            for lease in self.held:
                lease.inner.release()
        self.held.clear()

    def barrier(self, pending: Sequence[Pending]) -> None:
        for each in pending:
            self.pause("barrier")
            self.inner.barrier([each])

    def publish(self, staged: object, name: str) -> Pending:
        pending = super().publish(staged, name)  # type: ignore[arg-type]
        self._modified_ns[name] = self._clock_ns()
        return pending

    def commit(self, staged: object, name: str) -> None:
        super().commit(staged, name)  # type: ignore[arg-type]
        self._appeared(name)

    def create(self, name: str, *buffers: Buffer) -> None:
        super().create(name, *buffers)
        self._appeared(name)

    def delete(self, *names: str) -> None:
        for name in names:
            super().delete(name)
            self._changed(name, False)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        last = ""
        while True:
            self.pause(f"list {prefix}")
            found = [info for info in self.inner.list(prefix) if info.name > last][: self.PAGE]
            for info in found:
                yield ObjectInfo(info.name, info.size, self._modified_ns.get(info.name, 0))
            if len(found) < self.PAGE:
                return
            last = found[-1].name

    def lease(self, name: str) -> Lease:
        lease = _ProcessLease(self, super().lease(name))
        self.held.add(lease)
        return lease

    def leases(self) -> Sequence[LeaseInfo]:
        return [LeaseInfo(each.name, 0.0 if self._liveness else each.idle_s) for each in super().leases()]

    def _appeared(self, name: str) -> None:
        self._modified_ns[name] = self._clock_ns()
        self._changed(name, True)
