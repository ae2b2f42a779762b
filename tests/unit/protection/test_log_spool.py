"""The directory of log files that are fetched before the engine asks for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.protection import log_spool
from perdure.protection.log_spool import LogSpool
from perdure.workloads.recovery_contract import ServedFile


class Log:
    """A log of so many full files and one that is not; notes which were asked for."""

    def __init__(self, full: int) -> None:
        self.full, self.asked = full, 0

    def __iter__(self) -> Iterator[ServedFile]:
        for number in range(self.full + 1):
            self.asked += 1
            yield ServedFile(f"{number:024d}", bytes([number]) * 8, 8 if number < self.full else 3)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


def test_no_more_is_kept_than_allowed_and_it_goes_on_as_files_are_taken(tmp_path: Path) -> None:
    """Four of nine files are kept until one is taken, then the next comes; the last, which is not full, never does."""
    directory, log = tmp_path / "spool", Log(9)
    spool = LogSpool(directory, 4)
    filler = threading.Thread(target=spool.fill, args=(log,))
    filler.start()
    most = 0
    for number in range(9):
        target = tmp_path / f"taken-{number}"
        while not spool.take(f"{number:024d}", target):
            assert filler.is_alive() or (directory / f"{number:024d}").exists()
        most = max(most, len(names(directory)))
        assert target.read_bytes() == bytes([number]) * 8
    filler.join()
    assert most <= 5, "four, and the one that is being written"
    assert names(directory) == []
    assert log.asked == 10
    assert not spool.take(f"{9:024d}", tmp_path / "no")


def test_a_file_has_its_name_only_when_its_bytes_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure no file of zeros is in the spool, where the engine would take it for the end of the log."""
    directory, synced = tmp_path / "spool", list[tuple[str, bytes, bool]]()

    def sync(path: Path) -> None:
        synced.append((path.name, path.read_bytes(), (directory / path.stem).exists()))

    monkeypatch.setattr(log_spool, "sync_path", sync)
    LogSpool(directory, 4).fill(Log(2))
    assert synced == [(f"{number:024d}.part", bytes([number]) * 8, False) for number in range(2)]
    assert names(directory) == [f"{number:024d}" for number in range(2)]


def test_one_fetches_and_leftovers_are_removed(tmp_path: Path) -> None:
    """A second process does not fetch as well; what an earlier run left is removed unless it is what comes next."""
    directory = tmp_path / "spool"
    spool = LogSpool(directory, 4)
    directory.mkdir()
    for name in ("0" * 23 + "1", "7" * 24, "0" * 23 + "2.part"):
        (directory / name).write_bytes(b"\x01" * 8)
    assert spool.wanted
    with spool._fetching() as mine:
        assert mine
        assert not spool.wanted
        log = Log(2)
        spool.fill(log)
        assert log.asked == 0
    spool.fill(Log(2))
    assert names(directory) == [f"{0:024d}", f"{1:024d}"]


def test_a_file_that_is_not_full_is_held_against_the_engines_own(tmp_path: Path) -> None:
    """The engine keeps its own file if that has the same bytes where the pool's ends, and only then."""
    mine = tmp_path / "own"
    file = ServedFile("x", b"abcdefgh" + bytes(8), 8)
    assert not LogSpool.is_surpassed(file, mine)
    mine.write_bytes(b"abcdefghij" + bytes(6))
    assert LogSpool.is_surpassed(file, mine)
    mine.write_bytes(b"abcd" + bytes(12))
    assert not LogSpool.is_surpassed(file, mine)
