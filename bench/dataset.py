"""The data that is measured: a database, files that do not compress, and ordinary files.

Runs as a process of its own, so that the benchmark's memory stays small: ``python dataset.py WHAT PATH BYTES``.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from perdure.testing.mailstore_content import BodyKind, body

PAGE = 8192
ROW = 8100
"""Bytes of one row: with its header just one page, so that changing a row changes a page."""


def row_body(seed: int) -> bytes:
    """Half of it does not compress, half is text: about 0.63 of its size under zstd."""
    half = ROW // 2
    return body(BodyKind.NOISE, seed, half) + body(BodyKind.TEXT, seed + 1, ROW - half)


def make_database(path: Path, size: int) -> None:
    """A database in WAL mode with one row on every page."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {PAGE}")
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO rows (body) VALUES (?)", _bodies(size // PAGE))
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def _bodies(count: int) -> Iterator[tuple[bytes]]:
    for seed in range(count):
        yield (row_body(2 * seed),)


def make_noise(folder: Path, size: int) -> None:
    """Files of up to 256 MiB that do not compress."""
    folder.mkdir()
    source = random.Random(7)
    for number, offset in enumerate(range(0, size, 256 << 20)):
        left = min(256 << 20, size - offset)
        with (folder / f"{number:02}.bin").open("wb") as file:
            while left:
                part = min(left, 1 << 20)
                file.write(source.randbytes(part))
                left -= part


def copy_files(folder: Path, size: int) -> None:
    """Ordinary files out of /usr, with their folders and symbolic links, until there are enough."""
    copied = 0
    for root, folders, names in os.walk("/usr"):
        folders.sort()
        if "perdure" in root:
            continue
        target = folder / Path(root).relative_to("/usr")
        target.mkdir(parents=True, exist_ok=True)
        for name in sorted(names):
            path = Path(root, name)
            try:
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_size <= size - copied:
                    shutil.copy2(path, target / name)
                    copied += status.st_size
                elif stat.S_ISLNK(status.st_mode):
                    (target / name).symlink_to(path.readlink())
            except PermissionError:
                continue
        if copied >= size * 0.99:
            return


MAKERS = {"database": make_database, "noise": make_noise, "files": copy_files}

if __name__ == "__main__":
    MAKERS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
