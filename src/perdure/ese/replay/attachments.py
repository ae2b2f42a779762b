"""Which database a number in the records means: databases are made, attached and detached in the log itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from perdure.ese.headers.attachments import Attachment, path_text
from perdure.ese.structures import Fields, LogPosition, Signature

__all__ = ["ATTACHMENT_RECORDS", "Attachments", "DatabaseMark", "mark_of"]

CREATE, ATTACH, DETACH = 14, 15, 16
ATTACHMENT_RECORDS = (CREATE, ATTACH, DETACH)
_VERSION_FOLLOWS, _UTF16, _UTF16_DETACH = 4, 8, 0x10


@dataclass(frozen=True, slots=True)
class DatabaseMark:
    """A record that makes, attaches or detaches a database.

    Args:
        kind: CREATE, ATTACH or DETACH.
        dbid: Number of the database.
        signature: Its identity; unset in DETACH.
        consistent: In ATTACH, where it was last consistent.
        path: Where it lay.
    """

    kind: int
    dbid: int
    signature: Signature
    consistent: LogPosition
    path: str


def mark_of(record: bytes) -> DatabaseMark:
    """Read a CreateDB, AttachDB or DetachDB record."""
    at = Fields(record)
    if record[0] == CREATE:
        start = 47 if at.u8(42) & _VERSION_FOLLOWS else 43
        path = path_text(record[start:], utf16=bool(at.u8(42) & _UTF16))
        return DatabaseMark(CREATE, at.u8(3), at.signature(12), LogPosition(0, 0, 0), path)
    if record[0] == ATTACH:
        path = path_text(record[75:], utf16=bool(at.u8(74) & _UTF16))
        return DatabaseMark(ATTACH, at.u8(3), at.signature(16), at.position(8), path)
    path = path_text(record[7:], utf16=bool(at.u8(6) & _UTF16_DETACH))
    return DatabaseMark(DETACH, at.u8(3), Signature(bytes(28)), LogPosition(0, 0, 0), path)


@dataclass(slots=True)
class Attachments:
    """Follows which databases are attached.

    Args:
        attached: Identity and path by number.
    """

    attached: dict[int, tuple[Signature, str]] = field(default_factory=dict)

    def begin_log(self, listed: Iterable[Attachment]) -> None:
        """A log begins, and its header lists what is attached."""
        for one in listed:
            self.attached[one.dbid] = one.signature, one.path

    def take(self, mark: DatabaseMark) -> None:
        """A database is made, attached or detached."""
        if mark.kind == DETACH:
            self.attached.pop(mark.dbid, None)
        else:
            self.attached[mark.dbid] = mark.signature, mark.path

    def number_of(self, signature: Signature) -> int | None:
        """The number of a database, ``None`` while it is not attached."""
        return next((dbid for dbid, (own, _path) in self.attached.items() if own == signature), None)

    def path_of(self, signature: Signature) -> str:
        """Where a database lay, empty if nothing tells."""
        return next((path for own, path in self.attached.values() if own == signature), "")
