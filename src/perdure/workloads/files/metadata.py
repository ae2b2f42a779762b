"""A file's metadata beyond its content: reading extended attributes and putting everything back."""

from __future__ import annotations

import errno
import os
import stat

from perdure.model.entries import Entry, EntryKind

__all__ = ["apply_to_descriptor", "apply_to_symlink", "read_symlink_xattrs", "read_xattrs"]

_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
"""Set after the mode, because ``chmod`` rewrites the mask of an ACL. Format: acl(5), xattr(7)."""

_NO_XATTRS = {errno.ENOTSUP, errno.ENOSYS}
_VANISHED = {errno.ENODATA, errno.ENOENT}


def read_xattrs(descriptor: int) -> dict[bytes, bytes]:
    """Extended attributes, ACLs among them, of an open file or directory.

    Raises:
        OSError: They exist but cannot be read.
    """
    return _read(descriptor, follow=True)


def read_symlink_xattrs(directory: int, name: bytes) -> dict[bytes, bytes]:
    """Extended attributes of a symbolic link itself; none where /proc is not mounted."""
    return _read(_through_proc(directory, name), follow=False)


def _read(file: int | bytes, *, follow: bool) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS or error.errno in _VANISHED:
            return {}
        raise
    found: dict[bytes, bytes] = {}
    for name in sorted(names):
        try:
            found[os.fsencode(name)] = os.getxattr(file, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _VANISHED:
                raise
    return found


def _through_proc(directory: int, name: bytes) -> bytes:
    """There is no lgetxattrat before Linux 6.13; /proc gives the same safety."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def apply_to_descriptor(descriptor: int, entry: Entry) -> list[str]:
    """Give an open file or directory the owner, mode, attributes and times of an entry, as far as permitted.

    The order matters: a change of owner clears set-user-id bits and capabilities; ``user.*`` attributes need
    write permission, so they precede the mode; ACLs follow it; the time is last.

    Returns:
        What could not be applied, in words, without the path.
    """
    notes: list[str] = []
    mode = entry.mode & 0o7777
    if not _chown(descriptor, entry):
        notes.append(f"owner {entry.uid}:{entry.gid} could not be set")
        if mode & (stat.S_ISUID | stat.S_ISGID) and entry.kind is EntryKind.FILE:
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
            notes.append("set-user-id and set-group-id were left off, because the owner is another")
    notes += _set_xattrs(descriptor, {k: v for k, v in entry.xattrs.items() if k not in _ACLS})
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        notes.append(f"mode {mode:o} could not be set: {error.strerror}")
    notes += _set_xattrs(descriptor, {k: v for k, v in entry.xattrs.items() if k in _ACLS})
    try:
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
    except (OSError, OverflowError) as error:
        notes.append(f"modification time could not be set: {error}")
    return notes


def apply_to_symlink(directory: int, entry: Entry) -> list[str]:
    """Give a symbolic link the owner, attributes and time of an entry, as far as permitted."""
    notes: list[str] = []
    try:
        os.chown(entry.name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
    except OSError:
        found = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            notes.append(f"owner {entry.uid}:{entry.gid} could not be set")
    if entry.xattrs:
        notes += _set_xattrs(_through_proc(directory, entry.name), entry.xattrs, follow=False)
    try:
        os.utime(entry.name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)
    except (OSError, OverflowError) as error:
        notes.append(f"modification time could not be set: {error}")
    return notes


def _chown(descriptor: int, entry: Entry) -> bool:
    try:
        os.fchown(descriptor, entry.uid, entry.gid)
    except OSError:
        found = os.fstat(descriptor)
        return (found.st_uid, found.st_gid) == (entry.uid, entry.gid)
    return True


def _set_xattrs(file: int | bytes, xattrs: dict[bytes, bytes], *, follow: bool = True) -> list[str]:
    notes = []
    for name, value in xattrs.items():
        try:
            os.setxattr(file, name, value, follow_symlinks=follow)
        except OSError as error:
            readable = name.decode("utf-8", "backslashreplace")
            notes.append(f"extended attribute {readable} could not be set: {error.strerror}")
    return notes
