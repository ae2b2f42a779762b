"""Looking around in a stored tree."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

from perdure.model.entries import Entry, EntryKind
from perdure.model.errors import BadInput, NotFound
from perdure.model.listings import read_listing
from perdure.workloads.contract import ListingSource, RestoredItem
from perdure.workloads.files.notes import readable

__all__ = ["browse", "find", "iterate", "list_directory", "split_path"]


def split_path(path: str) -> list[bytes]:
    """The names in a path relative to the root of a tree; none for the root itself.

    Raises:
        BadInput: The path leads upwards.
    """
    names = [name for name in os.fsencode(path).split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise BadInput(f"{path!r} leads upwards", hint="write the path as it is below the protected folder")
    return names


def find(root: Entry, source: ListingSource, path: str) -> Entry:
    """Look up a path relative to the root of a tree.

    Raises:
        NotFound: The tree has no such entry; the hint names those that are close.
        BadInput: The path leads upwards.
        Damaged: A listing on the way is damaged.
    """
    found, gone = root, b""
    for name in split_path(path):
        entries: dict[bytes, Entry] = {}
        if found.kind is EntryKind.DIRECTORY:
            entries = {entry.name: entry for entry in read_listing(found, source)}
        if name not in entries:
            where = f"in {readable(gone)!r}" if gone else "at the top of the tree"
            raise NotFound(
                f"this recovery point has no {readable(name)!r} {where}",
                code="item-not-found",
                hint=_hint(name, entries),
            )
        found = entries[name]
        gone = gone + b"/" + name if gone else name
    return found


def list_directory(root: Entry, source: ListingSource, path: str = "") -> list[Entry]:
    """The entries of a directory in the order of their names; the entry itself if the path names a file.

    Raises:
        NotFound, BadInput, Damaged: As :func:`find`.
    """
    found = find(root, source, path)
    return list(read_listing(found, source)) if found.kind is EntryKind.DIRECTORY else [found]


def iterate(root: Entry, source: ListingSource) -> Iterator[tuple[bytes, Entry]]:
    """Every entry below the root with its path, directories before what they hold.

    Raises:
        Damaged: A listing is damaged.
    """
    stack = [(b"", read_listing(root, source))]
    while stack:
        path, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        below = path + b"/" + entry.name if path else entry.name
        yield below, entry
        if entry.kind is EntryKind.DIRECTORY:
            stack.append((below, read_listing(entry, source)))


def browse(root: Entry, source: ListingSource, path: str = "") -> list[RestoredItem]:
    """Lines for ``perdure browse``.

    Raises:
        NotFound, BadInput, Damaged: As :func:`find`.
    """
    return [_item(entry) for entry in list_directory(root, source, path)]


def _item(entry: Entry) -> RestoredItem:
    details = f"-> {readable(entry.target)}" if entry.kind is EntryKind.SYMLINK else entry.gap
    return RestoredItem(readable(entry.name), entry.kind.value, entry.size, details)


def _hint(name: bytes, entries: dict[bytes, Entry]) -> str:
    close = difflib.get_close_matches(readable(name), [readable(other) for other in entries], n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "list what it holds with perdure browse"
