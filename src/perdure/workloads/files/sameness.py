"""Telling from a file's metadata whether it is the same as before, and whether that may be believed."""

from __future__ import annotations

import os
import stat

from blake3 import blake3

from perdure.model.entries import Entry

__all__ = ["RACY_NS", "is_racy", "is_unchanged", "link_number"]

RACY_NS = 2_000_000_000
"""A file that changed this short a time before it was read may change again without a new time stamp: ticks
of file systems are up to 2 s long (FAT). Its ``ctime_ns`` is kept as 0, so that the next scan reads it again."""


def is_unchanged(before: Entry, found: os.stat_result) -> bool:
    """Whether a file is the one that the last point has, as far as its metadata can say."""
    return (
        before.ctime_ns == found.st_ctime_ns
        and before.mtime_ns == found.st_mtime_ns
        and before.size == found.st_size
        and before.inode == found.st_ino
        and not before.gap
        and stat.S_ISREG(found.st_mode)
    )


def is_racy(found: os.stat_result, now: int) -> bool:
    """Whether a file changed so short a time before it was read that its times cannot be trusted.

    A ctime in the future means that the clock was set back: it cannot be trusted either.
    """
    recent = now - RACY_NS
    return found.st_ctime_ns >= recent or recent <= found.st_mtime_ns <= now + RACY_NS


def link_number(found: os.stat_result) -> int:
    """The number that all names of one file share; 0 for a file of one name."""
    if found.st_nlink < 2:
        return 0
    digest = blake3(b"%d:%d" % (found.st_dev, found.st_ino)).digest(8)
    return (int.from_bytes(digest, "big") >> 1) or 1
