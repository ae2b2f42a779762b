"""Log records about transactions, databases, backups and the engine itself."""

from __future__ import annotations

import struct

from perdure.testing.information_store.page_records import Actor

__all__ = [
    "attach_database",
    "backup_mark",
    "begin",
    "begin_transaction",
    "commit",
    "commit_transaction",
    "create_database",
    "create_database_finish",
    "detach_database",
    "extend_database",
    "force_rollover",
    "initialise",
    "padding",
    "reattach_database",
    "recovery_quit",
    "recovery_undo",
    "rollback",
    "terminate",
]

_UTF16_NAMES = 0x08
_UTF16_NAMES_DETACH = 0x10
_VERSION_FOLLOWS = 0x04


def begin_transaction(actor: Actor) -> bytes:
    """Begin0: a transaction of level 1 begins."""
    return struct.pack("<BHBI", 8, actor.process, 0x10, actor.transaction)


def begin(process: int, level: int) -> bytes:
    """Begin: one more level begins inside of level ``level``."""
    return struct.pack("<BHB", 5, process, level | 0x10)


def commit_transaction(process: int, number: int) -> bytes:
    """Commit0: everything of the transaction is durable once this record is."""
    return struct.pack("<BHBI", 9, process, 0, number)


def commit(process: int, level: int) -> bytes:
    """Commit: back to level ``level``, above 0."""
    return struct.pack("<BHB", 6, process, level)


def rollback(process: int, levels: int) -> bytes:
    """Rollback of as many levels; the undo of each change was logged before."""
    return struct.pack("<BHB", 7, process, levels)


def _path(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


def create_database(dbid: int, signature: bytes, path: str) -> bytes:
    """CreateDB."""
    name = _path(path)
    flags = _UTF16_NAMES | _VERSION_FOLLOWS
    return (
        struct.pack("<BHBII", 14, 0xFFFF, dbid, 0, 0)
        + signature
        + struct.pack("<HBHH", len(name), flags, 0x620, 0)
        + name
    )


def create_database_finish(dbid: int) -> bytes:
    """CreateDBFinish: the new database is whole."""
    return struct.pack("<BHB", 79, 0xFFFF, dbid)


def attach_database(dbid: int, consistent: bytes, signature: bytes, log_signature: bytes, path: str) -> bytes:
    """AttachDB; ``consistent`` are the 8 bytes of the position that its header gives."""
    name = _path(path)
    head = struct.pack("<BHBI", 15, 0xFFFF, dbid, 0) + consistent + signature + log_signature
    return head + struct.pack("<HB", len(name), _UTF16_NAMES) + name


def reattach_database(dbid: int, attach: bytes, consistent: bytes, signature: bytes) -> bytes:
    """ReAttach: it was still attached when recovery ended."""
    body = bytes([dbid]) + attach + consistent + signature
    return struct.pack("<BI", 72, len(body)) + body


def detach_database(dbid: int, path: str) -> bytes:
    """DetachDB: it is whole without any log."""
    name = _path(path)
    return struct.pack("<BHBHB", 16, 0xFFFF, dbid, len(name), _UTF16_NAMES_DETACH) + name


def extend_database(dbid: int, last: int) -> bytes:
    """ExtendDB: the file ends with page ``last`` now."""
    return struct.pack("<BIBI", 68, 5, dbid, last)


def initialise(parameters: bytes, time: bytes) -> bytes:
    """Init2: the engine begins to write."""
    return bytes([49]) + parameters + time


def terminate(position: bytes, redo_from: bytes, time: bytes) -> bytes:
    """Term2: the engine ends in order."""
    return bytes([50]) + position + redo_from + b"\0" + time


def recovery_undo(time: bytes) -> bytes:
    """RecoveryUndo2: redo is over, what follows takes open transactions back."""
    return bytes([51]) + time


def recovery_quit(position: bytes, redo_from: bytes, time: bytes) -> bytes:
    """RecoveryQuit2: recovery is over."""
    return bytes([52]) + position + redo_from + b"\1" + time


def backup_mark(phase: int, kind: int, scope: int, dbid: int, mark: bytes) -> bytes:
    """Backup2: a phase of a backup; ``mark`` are the 24 bytes that the header gets."""
    return struct.pack("<BBIBB", 60, phase, kind, scope, dbid) + mark + struct.pack("<BH", 0, 0)


def force_rollover(reason: str) -> bytes:
    """ForceLogRollover: the generation ends before it is full."""
    text = reason.encode("ascii") + b"\0"
    return struct.pack("<BHH", 61, 0xFFFF, len(text)) + text


def padding(size: int) -> bytes:
    """NOP2 of ``size`` bytes, at least 5: fills a segment that has to be written now."""
    return struct.pack("<BI", 71, size - 5) + bytes(size - 5)
