"""Attach lists: which databases a log stream was writing when a log or checkpoint was made."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.ese.structures import Fields, LogPosition, Signature

__all__ = ["ATTACH_LIST_SIZE", "Attachment", "attachments"]

ATTACH_LIST_SIZE = 2048
_HEAD = 64
_UTF16 = 0x20


@dataclass(frozen=True, slots=True)
class Attachment:
    """A database attached to a log stream.

    Args:
        dbid: Number of the database in the records of this stream while it is attached.
        flags: As stored.
        dbtime: The database's modification counter.
        last_objid: Highest object number in use.
        maximum_pages: Limit of its size, 0 for none.
        attached: Log position of the attachment.
        consistent: Log position at which it was last consistent.
        signature: Identity of the database.
        path: Where it lay.
    """

    dbid: int
    flags: int
    dbtime: int
    last_objid: int
    maximum_pages: int
    attached: LogPosition
    consistent: LogPosition
    signature: Signature
    path: str


def attachments(area: bytes) -> tuple[Attachment, ...]:
    """Read an attach list; it ends at a database number of zero, or where an entry would not fit.

    Args:
        area: The 2048 bytes.
    """
    found = []
    fields, at = Fields(area), 0
    while at + _HEAD <= len(area) and fields.u8(at):
        length = fields.u16(at + 2)
        name = area[at + _HEAD : at + _HEAD + length]
        utf16 = fields.u8(at + 1) & _UTF16
        found.append(
            Attachment(
                dbid=fields.u8(at),
                flags=fields.u8(at + 1),
                dbtime=fields.u64(at + 4),
                last_objid=fields.u32(at + 12),
                maximum_pages=fields.u32(at + 16),
                attached=fields.position(at + 20),
                consistent=fields.position(at + 28),
                signature=fields.signature(at + 36),
                path=path_text(name, utf16=bool(utf16)),
            )
        )
        at += _HEAD + length
    return tuple(found)


def path_text(content: bytes, *, utf16: bool) -> str:
    """The first of the NUL-terminated strings in a path field."""
    text = content.decode("utf-16-le" if utf16 else "latin-1", "replace")
    return text.split("\0", 1)[0]
