"""``perdure ese header``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import fail, print_json, print_lines
from perdure.model.errors import Damaged

if TYPE_CHECKING:
    from perdure.ese.headers.attachments import Attachment
    from perdure.ese.headers.copies import CopiesState

__all__ = ["header"]

_HEAD = 1 << 16
_BIT_PATTERNS = {"checksum", "magic", "version", "flags", "previous_segments", "generation", "sort_version"}


def header(file: Path, /, *more: Path, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show every field of the header of a database, log or checkpoint.

    It does what eseutil /mh, /ml and /mk do, and tells by itself which of them a file needs. It exits with status 7 if
    a header, or one of its two copies, is damaged.

    For example:

        perdure ese header mailbox.edb
        perdure ese header E00.log E00.chk --json

    Args:
        file: A database, log or checkpoint.
        more: More of them.
    """
    from perdure.cli.commands.ese.documents import readable
    from perdure.ese.errors import EseDamaged

    status = 0
    for path in (file, *more):
        try:
            with readable(path):
                sound = _show(path, common)
            status = status if sound else Damaged.exit_status
        except EseDamaged as error:
            status = fail(error, as_json=common.json)
    return status


def _show(path: Path, common: CommonOptions) -> bool:
    """Print one header; returns whether both copies of it are sound."""
    from perdure.cli.commands.ese.documents import document, text

    kind, decoded, copies, more = _read(path)
    sound = copies is None or (copies.primary_sound and copies.shadow_sound)
    if common.json:
        print_json(
            {"file": str(path), "kind": kind, "header": document(decoded), "copies": document(copies), **document(more)}
        )
        return sound
    lines = [f"{path}: {kind}"]
    if copies is not None:
        lines.append(_line("copies", _about(copies)))
    lines += [_line(name, text(value)) for name, value in more.items()]
    lines += [
        _line(field.name, _value(field.name, getattr(decoded, field.name)))
        for field in fields(decoded)
        if field.name != "attached"
    ]
    for attachment in getattr(decoded, "attached", ()):
        lines += _attachment_lines(attachment)
    print_lines([*lines, ""])
    return sound


def _read(path: Path) -> tuple[str, Any, CopiesState | None, dict[str, object]]:
    """The kind of file, its decoded header, how its copies are, and what follows from it."""
    from perdure.ese.errors import EseUnsupported, NotAnEseFile
    from perdure.ese.headers.checkpoint import read_checkpoint
    from perdure.ese.headers.database import read_database_header
    from perdure.ese.headers.kinds import FileKind, kind_by_content, kind_by_name
    from perdure.ese.headers.log import read_log_header

    with path.open("rb") as opened:
        head = opened.read(_HEAD)
    kind = kind_by_content(head) or kind_by_name(path.name)
    if kind is FileKind.DATABASE:
        decoded, copies = read_database_header(head, path.name)
        more: dict[str, object] = {
            "format": decoded.format_text,
            "state": decoded.state_text,
            "required_logs": _range_text(decoded.required_generations),
            "committed_logs": _range_text(decoded.committed_generations),
        }
        return kind.value, decoded, copies, more
    if kind is FileKind.LOG:
        log = read_log_header(head, path.name)
        return kind.value, log, None, {"format": log.format_text, "circular_logging": log.circular}
    if kind is FileKind.CHECKPOINT:
        checkpoint, copies = read_checkpoint(head, path.name)
        return kind.value, checkpoint, copies, {}
    if kind is None:
        raise NotAnEseFile(f"{path} is no file of the ESE engine", hint="name an .edb, .log or .chk file")
    raise EseUnsupported(f"{path} is a {kind.value}, whose header is not decoded")


def _range_text(generations: range) -> str:
    return f"{generations.start:X}-{generations.stop - 1:X}" if generations else "none"


def _about(copies: CopiesState) -> str:
    if copies.primary_sound and copies.shadow_sound:
        return "both sound" + ("" if copies.equal else ", and they differ; the first is shown")
    return f"DAMAGED: only the {copies.used} one is sound"


def _attachment_lines(attachment: Attachment) -> Iterator[str]:
    yield f"    attached database {attachment.dbid}: {attachment.path}"
    for field in fields(attachment):
        if field.name not in ("dbid", "path"):
            yield "  " + _line(field.name, _value(field.name, getattr(attachment, field.name)))


def _value(name: str, value: object) -> str:
    """A field as people read it: numbers that are patterns of bits in hexadecimal digits."""
    from perdure.cli.commands.ese.documents import text

    if isinstance(value, int) and name in _BIT_PATTERNS:
        return f"{value:#x}"
    if is_dataclass(value) and not hasattr(type(value), "__bool__"):
        named = ((field.name, getattr(value, field.name)) for field in fields(value))
        return ", ".join(f"{key.replace('_', ' ')} {text(item)}" for key, item in named if item)
    return text(value)


def _line(name: str, value: str) -> str:
    return f"    {name.replace('_', ' '):34} {value or '-'}"
