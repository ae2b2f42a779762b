"""The backup manifest, by which ``pg_verifybackup`` checks a recovered directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import google_crc32c

from perdure.workloads.postgresql.listing import ListedFile, Listing
from perdure.workloads.postgresql.lsn import format_lsn

__all__ = ["manifest_of", "write_manifest"]

_THREADS = 2
_PIECE = 1 << 20

_NOT_LISTED = ("backup_manifest", "postgresql.auto.conf", "recovery.signal", "standby.signal", "postmaster.pid")


def write_manifest(directory: Path, listing: Listing) -> None:
    """List every file with its size and CRC-32C, read back from the disk.

    It is the checksum that PostgreSQL's own backups have. What is in the pool was authenticated when it was read; this
    is about the way from there to the disk and back, and is done for all of a cluster at every recovery.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as threads:
        entries = list(threads.map(lambda each: _entry(*each), _files(directory)))
    (directory / "backup_manifest").write_bytes(_manifest(listing, entries))


def manifest_of(listing: Listing, files: Sequence[ListedFile]) -> bytes:
    """The manifest that tells a server what an image has of files, without checksums."""
    return _manifest(listing, [{"Path": file.path, "Size": file.size, **_modified(file.mtime_ns)} for file in files])


def _manifest(listing: Listing, entries: Sequence[dict[str, object]]) -> bytes:
    version: dict[str, object] = {"PostgreSQL-Backup-Manifest-Version": 2 if listing.major >= 17 else 1}
    if listing.major >= 17:
        version["System-Identifier"] = int(listing.system)
    lines = ["{" + json.dumps(version)[1:-1] + ",", '"Files": [']
    files = [json.dumps(entry) for entry in entries]
    lines += [f"{line}," for line in files[:-1]] + files[-1:]
    lines.append("],")
    ranges = {"Timeline": listing.timeline, "Start-LSN": format_lsn(listing.start), "End-LSN": format_lsn(listing.stop)}
    lines += ['"WAL-Ranges": [', json.dumps(ranges), "],"]
    text = "\n".join(lines) + "\n"
    check = hashlib.sha256(text.encode()).hexdigest()
    return f'{text}"Manifest-Checksum": "{check}"}}\n'.encode()


def _files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Every file that belongs into a manifest, links below ``pg_tblspc`` followed."""
    pending = [directory]
    while pending:
        here = pending.pop()
        for path in sorted(here.iterdir()):
            name = str(path.relative_to(directory))
            if path.is_dir():
                if name != "pg_wal":
                    pending.append(path)
            elif name not in _NOT_LISTED:
                yield path, name


def _entry(path: Path, name: str) -> dict[str, object]:
    check = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            check = int(google_crc32c.extend(check, piece))
    status = path.stat()
    return {
        "Path": name,
        "Size": status.st_size,
        **_modified(status.st_mtime_ns),
        "Checksum-Algorithm": "CRC32C",
        # As PostgreSQL writes the number: its bytes in the order in which they lie in memory.
        "Checksum": check.to_bytes(4, "little").hex(),
    }


def _modified(time_ns: int) -> dict[str, object]:
    return {"Last-Modified": f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} GMT"}
