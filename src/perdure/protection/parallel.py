"""Work shared out between threads that take the next number from one counter."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["for_each_number"]


def for_each_number(count: int, work: Callable[[int], None], threads: int) -> None:
    """Call ``work`` with every number below ``count``, each once, from ``threads`` threads in rising order.

    After a failure no new number is taken.

    Raises:
        BaseException: The first failure of ``work``.
    """
    taken = iter(range(count))
    guard = threading.Lock()
    failures: list[BaseException] = []

    def take() -> int | None:
        with guard:
            return None if failures else next(taken, None)

    def run() -> None:
        try:
            while (number := take()) is not None:
                work(number)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the calling thread
            with guard:
                failures.append(error)

    helpers = [
        threading.Thread(target=run, name=f"storing-{row}", daemon=True) for row in range(min(threads, count) - 1)
    ]
    for helper in helpers:
        helper.start()
    run()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]
