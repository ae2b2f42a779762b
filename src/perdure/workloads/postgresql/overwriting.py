"""Writing an image onto a data directory of the same cluster: only the pages that differ."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from perdure.model.errors import Refused
from perdure.workloads.postgresql.layout import PAGE, Layout
from perdure.workloads.postgresql.listing import DATA, LISTING, WAL, Listing, decode_listing
from perdure.workloads.postgresql.programs import running_server
from perdure.workloads.postgresql.scanning import CONTROL
from perdure.workloads.postgresql.spreading import WalWriter, finish_spreading, make_file, safe_path, write_at
from perdure.workloads.recovery_contract import OverwrittenFile

__all__ = ["overwrite_image", "refuse_unfit"]

_TABLESPACES = "pg_tblspc"
_ASIDE = "before-recovery-"
_HIDDEN = f"{CONTROL}.perdure-partial"
"""Without its control file no server starts on a directory that is half one state and half the other."""


def refuse_unfit(content: Callable[[str], bytes], directory: Path, *, confirmed: bool) -> None:
    """Refuse a directory onto which an image must not be written.

    Args:
        content: Reads the image's listing.
        directory: The data directory.
        confirmed: Tablespaces that lie elsewhere may be written to.

    Raises:
        Refused: It is no data directory, another cluster's, or in use; nothing was changed.
    """
    listing = decode_listing(content(LISTING))
    control = next((path for name in (CONTROL, _HIDDEN) if (path := directory / name).is_file()), None)
    if control is None:
        raise Refused(
            f"{directory} is not a PostgreSQL data directory: it has no {CONTROL}; nothing was changed",
            code="not-a-data-directory",
            hint="name the server's data directory, or leave --delta out to recover to a new one",
        )
    system = struct.unpack("<Q", control.read_bytes()[:8])[0]
    if system != int(listing.system):
        raise Refused(
            f"{directory} is of another cluster: its system identifier is {system}, the source's is {listing.system}; "
            "nothing was changed",
            code="another-cluster",
            hint="check the path; to have the source there, move that directory away and leave --delta out",
        )
    if (pid := running_server(directory)) is not None:
        raise Refused(
            f"a server runs on {directory} (process {pid}); nothing was changed",
            code="target-in-use",
            hint="stop it first, for example with: pg_ctl stop -D DIRECTORY",
        )
    _refuse_tablespaces(listing, directory, confirmed=confirmed)


def _refuse_tablespaces(listing: Listing, directory: Path, *, confirmed: bool) -> None:
    beside = directory.with_name(f"{directory.name}.tablespaces")
    links = {path.name: path for path in (directory / _TABLESPACES).glob("*") if path.is_symlink()}
    for oid, name, _ in listing.tablespaces:
        link = links.get(str(oid))
        if link is None and (beside / str(oid)).exists() and not (directory / _TABLESPACES / str(oid)).exists():
            raise Refused(
                f"tablespace {name} would go to {beside / str(oid)}, which exists; nothing was changed",
                code="target-exists",
                hint="move it away",
            )
        if link is not None and not confirmed and not link.resolve().is_relative_to(beside.resolve()):
            raise Refused(
                f"tablespace {name} of {directory} is in {link.resolve()}, which would be overwritten too; "
                "nothing was changed",
                code="confirmation-needed",
                hint="if no other server uses it, add --yes",
            )


@contextlib.contextmanager
def overwrite_image(content: Callable[[str], bytes], directory: Path) -> Iterator[Mapping[str, OverwrittenFile]]:
    """Give a data directory the files of an image, then take those pages of them that may differ.

    Raises:
        Damaged: The listing is not one.
    """
    raw = content(LISTING)
    listing = decode_listing(raw)
    _hide_control(directory)
    _remove_foreign(listing, directory)
    _keep_wal(directory)
    _make_place(listing, directory)
    wal = WalWriter(directory, listing.segment_size)

    def take_wal(offset: int, view: memoryview) -> None:
        wal.write(listing.timeline, listing.wal_begin + offset, view)

    yield {DATA: _Pages(listing, directory), WAL: _New(take_wal)}
    finish_spreading(listing, raw, wal, directory)
    # In no moment is there a directory that looks whole but does not know that it has to recover.
    (directory / "recovery.signal").touch(mode=0o600)
    (directory / CONTROL).unlink(missing_ok=True)
    make_file(directory / CONTROL, 0, 0o600, listing.control)
    (directory / _HIDDEN).unlink()


def _hide_control(directory: Path) -> None:
    if (directory / CONTROL).exists():
        (directory / CONTROL).replace(directory / _HIDDEN)
    (directory / "postmaster.pid").unlink(missing_ok=True)


def _remove_foreign(listing: Listing, directory: Path) -> None:
    """Remove what the image does not have. Of a tablespace only this version's part is looked at."""
    files = {file.path for file in listing.files} | {_HIDDEN}
    folders = {path for path, _ in listing.directories} | {"pg_wal"}
    pending = [""]
    while pending:
        here = pending.pop()
        for path in list((directory / here).iterdir()):
            name = f"{here}/{path.name}" if here else path.name
            if here == _TABLESPACES and path.is_symlink():
                if name in folders:
                    pending += [each for each in folders if each.startswith(f"{name}/") and each.count("/") == 2]
                else:
                    path.unlink()
            elif name in folders and path.is_dir():
                if name != "pg_wal":
                    pending.append(name)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif name not in files or path.is_symlink():
                path.unlink()
        pending = [name for name in pending if (directory / name).is_dir()]


def _keep_wal(directory: Path) -> None:
    """Put the WAL that is there aside: it may be the only one with the last commits before a disaster.

    What PostgreSQL has noted about it goes: a summary of WAL that was never replayed would make a later incremental
    backup wrong.
    """
    folder = directory / "pg_wal"
    found = list(folder.iterdir()) if folder.is_dir() else []
    for path in found:
        if path.is_dir() and not path.name.startswith(_ASIDE):
            shutil.rmtree(path)
    there = [path for path in found if path.is_file()]
    if not there:
        return
    kept = folder / f"{_ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    kept.mkdir(mode=0o700)
    for path in there:
        path.rename(kept / path.name)


def _make_place(listing: Listing, directory: Path) -> None:
    """Every directory and every file with its size; what is missing is made of zeros."""
    for path, mode in sorted(listing.directories):
        place = directory / safe_path(path) if path else directory
        if not place.is_dir():
            place.unlink(missing_ok=True)
            place.mkdir(mode=0o700)
        place.chmod(mode)
    for path in ("pg_wal", "pg_wal/archive_status"):
        (directory / path).mkdir(exist_ok=True, mode=0o700)
    for file in listing.files:
        place = directory / safe_path(file.path)
        if place.is_file() and not place.is_symlink():
            if place.stat().st_size != file.size:
                os.truncate(place, file.size)
            place.chmod(file.mode)
        else:
            make_file(place, file.size, file.mode)


class _Pages:
    """The pages of all files; implements ``OverwrittenFile``. Several threads may use it."""

    def __init__(self, listing: Listing, directory: Path) -> None:
        self._directory = directory
        self._layout = Layout({file.path: file.runs for file in listing.files})
        self._sizes = {file.path: file.size for file in listing.files}

    def present(self, offset: int, length: int) -> bytes | bytearray:
        parts = list(self._layout.parts(offset, length))
        if len(parts) == 1 and parts[0][3] == length and parts[0][1] + length <= self._sizes[parts[0][0]]:
            return self._piece(parts[0][0], parts[0][1], length)
        found = bytearray(length)
        view = memoryview(found)
        for path, begin, at, count in parts:
            inside = min(count, self._sizes[path] - begin)
            if inside > 0:
                self._read(path, begin, view[at : at + inside])
        return found

    def take(self, offset: int, content: memoryview) -> int:
        written = 0
        for path, begin, at, count in self._layout.parts(offset, len(content)):
            inside = min(count, self._sizes[path] - begin)
            if inside > 0:
                written += self._take_part(path, begin, content[at : at + inside])
        return written

    def _take_part(self, path: str, begin: int, wanted: memoryview) -> int:
        there = bytearray(len(wanted))
        self._read(path, begin, memoryview(there))
        if there == wanted:
            return 0
        pages = -(-len(wanted) // PAGE)
        differ = _padded(there, pages) != _padded(wanted, pages)
        rows = np.flatnonzero(differ.any(axis=1))
        written = 0
        # Neighbours are written together.
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            first, end = int(run[0]) * PAGE, min((int(run[-1]) + 1) * PAGE, len(wanted))
            write_at(self._directory / path, wanted[first:end], begin + first)
            written += end - first
        return written

    def _piece(self, path: str, begin: int, length: int) -> bytes:
        """A part of one file, as most chunks of a large table are, without copying it."""
        descriptor = os.open(self._directory / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, begin)
        finally:
            os.close(descriptor)

    def _read(self, path: str, begin: int, into: memoryview) -> None:
        descriptor = os.open(self._directory / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while into and (count := os.preadv(descriptor, [into], begin)):
                into, begin = into[count:], begin + count
        finally:
            os.close(descriptor)


class _New:
    """A file of which nothing is there yet; implements ``OverwrittenFile``."""

    def __init__(self, write: Callable[[int, memoryview], None]) -> None:
        self._write = write

    def present(self, offset: int, length: int) -> bytearray | None:  # noqa: ARG002
        return None

    def take(self, offset: int, content: memoryview) -> int:
        self._write(offset, content)
        return len(content)


def _padded(content: bytearray | memoryview, pages: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    whole = np.zeros(pages * PAGE, np.uint8)
    whole[: len(content)] = np.frombuffer(content, np.uint8)
    return whole.view(np.uint64).reshape(pages, PAGE // 8)
