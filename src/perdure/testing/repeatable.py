"""Runs that can be repeated from a seed: randomness, clock, key stretching and the order of background work."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar
from unittest import mock

__all__ = ["SeededExecutor", "repeatable"]

_BEGIN_NS = 1_767_225_600 * 10**9
"""2026-01-01 UTC."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def repeatable(seed: int, *, hours: int = 0, pack_size: int = 24 << 10) -> Iterator[None]:
    """Inside, everything that perdure does in one thread is the same for the same seed, and quick.

    Random bytes come from the seed, the clock counts microseconds from a fixed day, guessing a passphrase is cheap,
    and packs are small, so that little data fills several. May be nested: the outer sequence goes on afterwards.
    Never for data that matters: the keys are no secrets.

    Args:
        seed: Of everything that is random.
        hours: How long after the fixed day the clock begins.
        pack_size: Bytes at which a pack is closed.
    """
    rng = random.Random(seed)  # noqa: S311 - repeatable is what it is for
    ticks = itertools.count(_BEGIN_NS + hours * 3600 * 10**9, 1000)

    def token_bytes(count: int = 32) -> bytes:
        return rng.randbytes(count)

    def token_hex(count: int = 32) -> str:
        return rng.randbytes(count).hex()

    with (
        mock.patch("secrets.token_bytes", token_bytes),
        mock.patch("secrets.token_hex", token_hex),
        mock.patch("time.time_ns", ticks.__next__),
        mock.patch("perdure.repository.keys._SCRYPT", (1 << 4, 8, 1)),
        mock.patch("perdure.repository.packs.PACK_SIZE", pack_size),
    ):
        yield


class _LateFuture(Future[_Result]):
    """A future whose work may be done only when somebody waits for it."""

    def __init__(self, work: Callable[[], _Result]) -> None:
        super().__init__()
        self._work: Callable[[], _Result] | None = work

    def work(self) -> None:
        if self._work is not None:
            work, self._work = self._work, None
            try:
                self.set_result(work())
            except BaseException as error:  # noqa: BLE001 - as every future does
                self.set_exception(error)

    def result(self, timeout: float | None = None) -> _Result:
        self.work()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.work()
        return super().exception(timeout)


class SeededExecutor(Executor):
    """Does work in the caller's thread: at once, or as late as it can be, as the seed says.

    Work is done in the order in which it was submitted, as by a single background thread.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._late: list[_LateFuture[Any]] = []

    def submit(
        self, fn: Callable[_Arguments, _Result], /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        def in_turn() -> _Result:
            while self._late and self._late[0] is not future:
                self._late[0].work()
            if self._late:
                del self._late[0]
            return fn(*args, **kwargs)

        future = _LateFuture(in_turn)
        self._late.append(future)
        if self._rng.random() < 0.5:
            future.work()
        return future
