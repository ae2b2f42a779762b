"""Making a recovery point of a frozen image: which pages, from where, into which record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.points import ImageFile, PointKind, RecoveryPoint
from perdure.protection.building import begin_capture, newest_image
from perdure.protection.comparing import changed_by_comparing
from perdure.protection.imaging import first_file, next_file, store_changes, store_whole
from perdure.protection.progress import Progress
from perdure.protection.vault import Vault
from perdure.workloads.contract import Image, ImageReader

__all__ = ["Found", "Stored", "by_comparing", "by_tracking", "compare_image", "store_image"]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Which pages of a file have to be stored.

    Args:
        pages: Their sorted numbers.
        read: Bytes read from the source to find them.
        compared: Whether they were found by comparing.
    """

    pages: NDArray[np.int64]
    read: int
    compared: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed recovery point and how it came about.

    Args:
        point: The record.
        found: What was stored of every file that had an image before.
    """

    point: RecoveryPoint
    found: Mapping[str, Found]


FindPages = Callable[[ImageReader, ImageFile], Found]


def by_comparing(vault: Vault, progress: Progress) -> FindPages:
    """Find pages by comparing source and pool."""

    def find(reader: ImageReader, before: ImageFile) -> Found:
        return Found(*changed_by_comparing(reader, vault.image_map(before), vault, progress=progress), compared=True)

    return find


def by_tracking(vault: Vault, progress: Progress) -> FindPages:
    """Take the pages that the workload knows, and compare where it does not."""
    compare = by_comparing(vault, progress)

    def find(reader: ImageReader, before: ImageFile) -> Found:
        if reader.changed is None:
            return compare(reader, before)
        grown = np.arange(before.size // reader.page_size, -(-reader.size // reader.page_size), dtype=np.int64)
        pages = reader.changed if before.size >= reader.size else np.union1d(reader.changed, grown)
        return Found(pages[pages * reader.page_size < reader.size], 0, compared=False)

    return find


def store_image(
    vault: Vault,
    source: str,
    image: Image,
    previous: RecoveryPoint | None,
    *,
    find: FindPages,
    cause: str,
    inconsistent_ns: int,
    progress: Progress,
) -> Stored:
    """Store what an image adds to the one before and commit the record.

    Args:
        vault: The pool.
        source: Id of the data source.
        image: The frozen image.
        previous: The record that it builds on; ``None``: everything is stored.
        find: Which pages of a file that ``previous`` has are to be stored.
        cause: Why the point is made; when pages had to be found by comparing, that is added.
        inconsistent_ns: Nanoseconds for which the replica had been inconsistent up to now.
        progress: Told of the bytes.

    Raises:
        Refused: ``previous`` is not the newest image any more, or another process commits at the same time.
    """
    before = {file.name: file for file in previous.files} if previous is not None else {}
    capture = begin_capture(vault, source, previous, newest_image)
    files: list[ImageFile] = []
    found: dict[str, Found] = {}
    changed = read = 0
    try:
        for reader in image.files:
            older = before.get(reader.name)
            if older is None:
                files.append(first_file(reader, store_whole(reader, capture, progress=progress), capture))
                changed += reader.size
                read += reader.size
                continue
            pages = find(reader, older)
            found[reader.name] = pages
            delta = store_changes(reader, pages.pages, capture, progress=progress)
            files.append(next_file(older, delta, capture, vault, page_size=reader.page_size))
            changed += len(pages.pages) * reader.page_size
            read += pages.read + len(pages.pages) * reader.page_size
        draft = RecoveryPoint(
            number=0,
            source=source,
            kind=PointKind.EXPRESS_FULL,
            time_ns=image.time_ns,
            position=image.position,
            chain=image.chain,
            files=tuple(files),
            size=sum(file.size for file in files),
            changed=changed,
            read=read,
            cause=_with_comparison(cause, found),
            notes=tuple(getattr(image, "notes", ())),
            inconsistent_ns=inconsistent_ns,
        )
        return Stored(capture.commit(draft), found)
    except BaseException:
        capture.abort()
        raise


def compare_image(vault: Vault, image: Image, point: RecoveryPoint, progress: Progress) -> dict[str, Found]:
    """Compare every file of an image with what a point at the same position holds of it."""
    find = by_comparing(vault, progress)
    held = {file.name: file for file in point.files}
    return {reader.name: find(reader, held[reader.name]) for reader in image.files}


def _with_comparison(cause: str, found: Mapping[str, Found]) -> str:
    if cause.startswith(("tracking lost", "consistency check")) or not any(part.compared for part in found.values()):
        return cause
    return f"{cause}; the changed pages were not known, so source and replica were compared"
