"""How people name a database, a schema or a table: ``shop``, ``shop.public``, ``shop.public.orders``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perdure.model.errors import BadInput

__all__ = ["ItemName", "parse_item", "shown_name"]

_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@dataclass(frozen=True, slots=True)
class ItemName:
    """A database, and maybe a schema and a relation in it."""

    database: str
    schema: str = ""
    relation: str = ""

    def __str__(self) -> str:
        return shown_name(*(part for part in (self.database, self.schema, self.relation) if part))


def shown_name(*parts: str) -> str:
    """Parts joined by dots; those that hold a dot or a quotation mark are quoted as in SQL."""
    return ".".join('"' + part.replace('"', '""') + '"' if set(part) & set('."') else part for part in parts)


def parse_item(text: str) -> ItemName:
    """Read a name. It is taken as it is written, in upper and lower case, as no SQL name would be.

    Raises:
        BadInput: It is no name.
    """
    parts: list[str] = []
    at = 0
    while match := _PART.match(text, at):
        parts.append(match[1].replace('""', '"') if match[1] else match[2])
        at = match.end()
        if at == len(text) or text[at] != ".":
            break
        at += 1
    if at != len(text) or not text or text.endswith(".") or not 1 <= len(parts) <= 3:
        raise BadInput(
            f"{text!r} does not name a database, a schema or a table",
            code="bad-item",
            hint='write DATABASE, DATABASE.SCHEMA or DATABASE.SCHEMA.TABLE, with "…" around a name that has dots',
        )
    return ItemName(*parts)
