"""Mailboxes of a simulated database: what they hold, and the transactions that change them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from perdure.testing.information_store.journal import JournalRow, digest_of
from perdure.testing.information_store.mounted_database import MountedDatabase
from perdure.testing.information_store.row_format import RowValue, Separated
from perdure.testing.information_store.schema import MAILBOXES, TableSchema, folder_table, message_table
from perdure.testing.information_store.tables import StoreTable
from perdure.testing.information_store.trees import Tree
from perdure.testing.information_store.versions import Session

__all__ = ["FOLDERS", "Bodies", "Change", "Mailbox", "MailboxRows", "Mailboxes", "schemas_of"]

FOLDERS = ("Inbox", "Archive", "Sent Items", "Deleted Items")

Values = dict[str, RowValue]
Change = tuple[str, str, JournalRow | None]
"""Table, key and row of one change, as the journal notes it."""

_POOL = 1 << 20
_SMALLEST_BODY, _LARGEST_BODY = 64, 60_000
_SKEW = 5.0
_PLAIN = bytes(byte if byte >= 0x40 else byte + 0x40 for byte in range(256))
"""Some readers take a long value's part for compressed if it begins with a small byte; ours never do."""

_WORDS = ("quarterly", "minutes", "lunch", "invoice", "draft", "review", "travel", "budget", "reply", "schedule")


def schemas_of(tables: set[str]) -> dict[str, TableSchema]:
    """How the mailbox tables with these names look."""
    found: dict[str, TableSchema] = {}
    for name in tables:
        kind, _, number = name.partition("_")
        if name == MAILBOXES.name:
            found[name] = MAILBOXES
        elif number.isdigit() and kind in ("Message", "Folder"):
            found[name] = (message_table if kind == "Message" else folder_table)(int(number))
    return found


class Bodies:
    """Bodies of messages: two thirds are like text, one third does not compress.

    Args:
        chance: Decides their sizes and contents.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._noise = chance.randbytes(_POOL).translate(_PLAIN)
        words = " ".join(chance.choice(_WORDS) for _ in range(_POOL // 6)).encode()
        self._text = (words * 2)[:_POOL]

    def subject(self, number: int) -> str:
        """A subject line."""
        words = self._chance.choices(_WORDS, k=self._chance.randint(1, 5))
        return f"{' '.join(words).capitalize()} ({number})"

    def draw(self) -> bytes:
        """One body; half are below 2 KiB, the mean is about 10 KiB."""
        chance = self._chance
        size = int(_SMALLEST_BODY + (_LARGEST_BODY - _SMALLEST_BODY) * chance.random() ** _SKEW)
        pool = self._text if chance.random() < 2 / 3 else self._noise
        start = chance.randrange(_POOL - size)
        return pool[start : start + size]


@dataclass(eq=False, repr=False)
class MailboxRows:
    """The committed rows of one table in memory, with one of them drawn in no time."""

    table: StoreTable
    rows: dict[int, Values] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=dict)

    def put(self, identifier: int, values: Values | None) -> None:
        if values is None:
            del self.rows[identifier]
            at, last = self.place.pop(identifier), self.order.pop()
            if last != identifier:
                self.order[at], self.place[last] = last, at
            return
        if identifier not in self.rows:
            self.place[identifier] = len(self.order)
            self.order.append(identifier)
        self.rows[identifier] = values


@dataclass(eq=False, repr=False)
class Mailbox:
    """One mailbox: its tables and what is committed in them."""

    number: int
    folders: MailboxRows
    messages: MailboxRows
    next_document: int = 1


@dataclass(eq=False, repr=False)
class Mailboxes:
    """All mailboxes of a database.

    Args:
        database: Where they lie.
        chance: Decides everything.
        rows: One row for every mailbox.
        by_number: The mailboxes.
    """

    database: MountedDatabase
    chance: Random
    rows: MailboxRows
    by_number: dict[int, Mailbox] = field(default_factory=dict)
    digests: dict[tuple[str, int], str] = field(default_factory=dict)
    """Digests of bodies, by table and number of the long value."""

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.chance)

    @staticmethod
    def create(database: MountedDatabase, session: Session, chance: Random) -> Mailboxes:
        """Make the table of mailboxes in an empty database; the session is in a transaction."""
        return Mailboxes(database, chance, MailboxRows(database.create_table(session, MAILBOXES)))

    @staticmethod
    def load(database: MountedDatabase, chance: Random) -> Mailboxes:
        """Read what a database holds."""
        tables = database.tables
        found = Mailboxes(database, chance, _load(tables[MAILBOXES.name], "MailboxNumber"))
        for number in found.rows.rows:
            folders = _load(tables[f"Folder_{number}"], "FolderId")
            messages = _load(tables[f"Message_{number}"], "DocumentId")
            after = 1 + _last_document(messages.table.tree)
            found.by_number[number] = Mailbox(number, folders, messages, after)
        return found

    def digest(self, table: StoreTable, value: RowValue) -> str | None:
        """What the journal says of a body."""
        if value is None:
            return None
        if not isinstance(value, Separated):
            assert isinstance(value, bytes)
            return digest_of(value)
        key = (table.name, value.identifier)
        if key not in self.digests:
            assert table.long_values is not None
            root = value.identifier.to_bytes(4, "big")
            parts = _with_prefix(table.long_values, root)
            self.digests[key] = digest_of(b"".join(data for name, data in parts if len(name) > len(root)))
        return self.digests[key]

    def stated(self, table: StoreTable, values: Values) -> JournalRow:
        """A row as the journal states it."""
        row: JournalRow = {}
        for name, value in values.items():
            if name == "Body":
                digest = self.digest(table, value)
                if digest is not None:
                    row[name] = digest
            elif isinstance(value, bytes):
                row[name] = digest_of(value)
            elif isinstance(value, int | str):
                row[name] = bool(value) if name == "IsRead" else value
        return row


def _load(table: StoreTable, identifier: str) -> MailboxRows:
    rows = MailboxRows(table)
    for _, data, _ in table.tree.scan():
        values = table.format.decode(data)
        number = values[identifier]
        assert isinstance(number, int)
        rows.put(number, values)
    return rows


def _last_document(tree: Tree) -> int:
    """The highest document number in a tree, of deleted messages too: numbers are never used again."""
    page, _ = tree.descend(b"\xff" * 8)[-1]
    if not page.nodes:
        return 0
    key, _, flags = page.nodes[-1]
    del flags
    return int.from_bytes(key[1:], "big") - 0x80000000


def _with_prefix(tree: Tree, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    for key, data, _ in tree.scan(prefix):
        if not key.startswith(prefix):
            return
        yield key, data
