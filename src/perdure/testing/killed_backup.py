"""A backup in a process of its own that is killed just before a step: a call to the engine's writer, or to the pool."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from perdure.protection.home import Home
from perdure.protection.image_verbs import express_full, synchronize
from perdure.protection.protected import Protected, workload_for
from perdure.repository.keys import RecoveryKey
from perdure.repository.opening import open_pool
from perdure.snapshots.writer_client import SocketWriter
from perdure.storage.local import LocalStorage
from perdure.testing.hooked_storage import HookedStorage

__all__ = ["VERBS", "Scene", "run_backup"]

VERBS: Mapping[str, Callable[[Protected], object]] = {"express-full": express_full, "sync": synchronize}

_READING = ("read", "read_range", "read_ranges", "size", "list", "lease", "leases")


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything lies.

    Args:
        pool: The pool.
        home: perdure's own state.
        recovery_key: Opens the pool.
    """

    pool: Path
    home: Path
    recovery_key: RecoveryKey

    def opened(self, storage: HookedStorage | None = None) -> Protected:
        """The only source of the pool."""
        home = Home(self.home)
        pool = open_pool(storage or LocalStorage(self.pool), self.recovery_key, home.cache_dir("pool"))
        (source,) = pool.sources()
        return Protected(home, pool, source, workload_for(source.workload))


def run_backup(scene: Scene, verb: str, kill_at: str = "") -> tuple[int, list[str]]:
    """Run a verb in a new process.

    Args:
        scene: Where everything lies.
        verb: One of :data:`VERBS`.
        kill_at: The step at which the process is killed with SIGKILL; it runs to its end if it never comes there.

    Returns:
        The exit status, negative for a signal, and the steps that were begun, each once.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "perdure.workloads.exchange"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(scene, verb, kill_at, there))
    process.start()
    there.close()
    steps: dict[str, None] = {}
    try:
        while True:
            steps[here.recv()] = None
    except EOFError:
        process.join()
    return process.exitcode or 0, list(steps)


def _run(scene: Scene, verb: str, kill_at: str, steps: Any) -> None:
    telling = threading.Lock()

    def step(name: str) -> None:
        if name == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with telling:
            steps.send(name)

    def before(method: str, names: tuple[str, ...]) -> None:
        if method not in _READING:
            step(" ".join([method, *(name.split("/")[0] for name in names[:1])]))

    def watched(name: str) -> Callable[..., Any]:
        call = getattr(SocketWriter, name)

        def wrapper(*arguments: Any) -> Any:
            step(f"call {name}")
            answer = call(*arguments)
            step(f"answer of {name}")
            return answer

        return wrapper

    for name in ("describe", "prepare", "freeze", "thaw", "complete", "abort"):
        setattr(SocketWriter, name, watched(name))
    storage = HookedStorage(LocalStorage(scene.pool))
    protected = scene.opened(storage)
    storage.hook = before
    VERBS[verb](protected)
