"""Calls to an object store: each ends by a deadline, and is tried again while that can help.

obstore has retries and timeouts of its own, but its timeout is one for all requests, the few bytes of a record
as well as a pack on a slow line, and nobody learns whether a request was repeated, which a conditional
create must know. So every call runs as a coroutine on one event loop of this process; it has a limit for an
attempt and one for the whole, both growing with the bytes that travel; and between attempts it waits a random
time up to an exponentially growing limit ("full jitter"). obstore's own retries are on for listings alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from perdure.storage.object_errors import STORE_ERRORS, Failure, did_not_answer, understood
from perdure.storage.object_urls import ObjectPlace

__all__ = ["Attempt", "Calls", "Patience"]

_T = TypeVar("_T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take.

    Args:
        answer_s: Seconds for one attempt, beside the transfer.
        total_s: Seconds for all attempts and the pauses between them, beside the transfer.
        slowest: Bytes per second that a transfer is given at least; a slower one counts as no answer.
    """

    answer_s: float = 20.0
    total_s: float = 120.0
    slowest: int = 64 << 10

    def attempt(self, size: int) -> float:
        return self.answer_s + size / self.slowest

    def total(self, size: int) -> float:
        return self.total_s + size / self.slowest


class Attempt:
    """One attempt of a call, which may learn on its way how much will travel."""

    def __init__(self, patience: Patience, limit: asyncio.Timeout, number: int) -> None:
        self._patience = patience
        self._limit = limit
        self.number = number

    def expect(self, size: int) -> None:
        """Give the attempt the time that so many bytes need."""
        self._limit.reschedule(asyncio.get_running_loop().time() + self._patience.attempt(size))


class _Loop:
    """The event loop of this process, in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="object-store", daemon=True).start()


_lock = threading.Lock()
_running: _Loop | None = None


def _event_loop() -> asyncio.AbstractEventLoop:
    global _running  # noqa: PLW0603 (a thread and the connections of obstore are per process)
    with _lock:
        if _running is None or _running.pid != os.getpid():
            _running = _Loop()
        return _running.loop


class Calls:
    """Runs calls to one place."""

    def __init__(self, place: ObjectPlace, patience: Patience) -> None:
        self.place = place
        self.patience = patience

    @staticmethod
    def start(coroutine: Coroutine[object, object, _T]) -> Future[_T]:
        """Begin something in the background."""
        return asyncio.run_coroutine_threadsafe(coroutine, _event_loop())

    def run(
        self, what: str, attempt: Callable[[Attempt], Awaitable[_T]], *, size: int = 0, writing: bool = False
    ) -> _T:
        """Do one call and wait for it; see :meth:`call`."""
        return wait_for(self.start(self.call(what, attempt, size=size, writing=writing)))

    async def call(
        self, what: str, attempt: Callable[[Attempt], Awaitable[_T]], *, size: int = 0, writing: bool = False
    ) -> _T:
        """Do one call.

        Args:
            what: What is done, as in "cannot …".
            attempt: Does it once. It may raise a :class:`PerdureError`, which ends the call.
            size: Bytes that travel.
            writing: Whether it changes something.

        Raises:
            PerdureError: What the store said last, or that it did not answer.
        """
        begun, number = monotonic(), 0
        while True:
            left = begun + self.patience.total(size) - monotonic()
            failure, cause = await self._tried(what, attempt, min(left, self.patience.attempt(size)), number, writing)
            if not isinstance(failure, Failure):
                return failure
            pause = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**number))  # noqa: S311 (jitter)
            if not failure.transient or monotonic() + pause >= begun + self.patience.total(size):
                raise failure.error from cause
            await asyncio.sleep(pause)
            number += 1

    async def _tried(
        self, what: str, attempt: Callable[[Attempt], Awaitable[_T]], seconds: float, number: int, writing: bool
    ) -> tuple[_T | Failure, BaseException | None]:
        begun = monotonic()
        try:
            async with asyncio.timeout(seconds) as limit:
                return await attempt(Attempt(self.patience, limit, number)), None
        except TimeoutError as error:
            return did_not_answer(self.place, what, monotonic() - begun, writing=writing), error
        except STORE_ERRORS as error:
            return understood(error, self.place, what, writing=writing), error


def wait_for(future: Future[_T]) -> _T:
    """The result; if the waiting is interrupted, the call is given up."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
