"""A small directory of log files that were fetched before the engine asked for them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from perdure.protection.recovery_places import sync_path
from perdure.workloads.recovery_contract import ServedFile

__all__ = ["LogSpool"]

_LOOK_S = 0.02
_IDLE_S = 60.0
_COMPARED = 1 << 16
_PART = ".part"
_LOCK = ".fetching"


class LogSpool:
    """Files fetched ahead. One process at a time fetches; the engine takes.

    Args:
        directory: Where they are; made when something is put into it.
        most: No more files than this are kept.
    """

    def __init__(self, directory: Path, most: int) -> None:
        self._directory, self._most = directory, most

    def take(self, name: str, target: Path) -> bool:
        """Move a file to where the engine wants it; false if it is not here and nobody is just fetching it."""
        while not self._move(name, target):
            if not (self._directory / (name + _PART)).exists() or not self._somebody_fetches():
                # It may have been finished between the two looks.
                return self._move(name, target)
            time.sleep(_LOOK_S)
        return True

    def fill(self, files: Iterable[ServedFile]) -> None:
        """Keep the next files here, until one is not whole yet, or nobody takes any for a minute.

        Does nothing if another process does the same.
        """
        self._directory.mkdir(exist_ok=True, mode=0o700)
        with self._fetching() as mine:
            if not mine:
                return
            first = True
            for file in files:
                if not file.whole:
                    return
                if first:
                    self._remove_all_but_following(file.name)
                    first = False
                if not self._room():
                    return
                self._put(file)

    @property
    def wanted(self) -> bool:
        """Whether nobody fetches now, so that somebody should."""
        return self._most > 0 and not self._somebody_fetches()

    @staticmethod
    def is_surpassed(file: ServedFile, local: Path) -> bool:
        """Whether the engine has, at its own place, a file that goes at least as far as one that is not whole yet.

        It may have more of it from elsewhere, and would replay less if it was given this one.
        """
        begin = max(0, file.known - _COMPARED)
        try:
            with local.open("rb") as opened:
                opened.seek(begin)
                return opened.read(file.known - begin) == bytes(file.content[begin : file.known])
        except OSError:
            return False

    def _put(self, file: ServedFile) -> None:
        part = self._directory / (file.name + _PART)
        part.write_bytes(file.content)
        # A name without its bytes after a power failure would be zeros, which the engine takes for the end of the log.
        sync_path(part)
        part.replace(self._directory / file.name)

    def _move(self, name: str, target: Path) -> bool:
        try:
            (self._directory / name).replace(target)
        except OSError:
            # Not here, or on another file system: it is fetched anew rather than copied by half.
            return False
        return True

    def _room(self) -> bool:
        """Wait until there is room; false if nobody takes anything any more."""
        began, held = time.monotonic(), len(self._files())
        while self._directory.is_dir() and (now := len(self._files())) >= self._most:
            if now < held:
                began, held = time.monotonic(), now
            if time.monotonic() - began > _IDLE_S:
                return False
            time.sleep(_LOOK_S)
        return self._directory.is_dir()

    def _files(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return [path.name for path in self._directory.iterdir() if "." not in path.name]
        return []

    def _remove_all_but_following(self, name: str) -> None:
        """What an earlier run of the engine left is of no use unless it is what comes next."""
        kept = sorted(each for each in self._files() if each >= name and each[:8] == name[:8])[: self._most]
        for path in self._directory.iterdir():
            if path.name not in kept and not path.name.startswith("."):
                path.unlink(missing_ok=True)

    def _somebody_fetches(self) -> bool:
        try:
            with self._fetching() as mine:
                return not mine
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _fetching(self) -> Iterator[bool]:
        """The right to fetch; false if somebody else has it."""
        descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
