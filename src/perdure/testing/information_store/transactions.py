"""Transactions of mailbox clients, one row operation at a time, so that many can be under way at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.journal import JournalRow, JournalWriter, digest_of
from perdure.testing.information_store.mailboxes import FOLDERS, Mailbox, Mailboxes, MailboxRows, Values
from perdure.testing.information_store.row_format import Separated
from perdure.testing.information_store.schema import folder_table, message_table
from perdure.testing.information_store.trees import KeyNotFound
from perdure.testing.information_store.versions import Session, WriteConflict

__all__ = ["Client", "Mix"]

_FIRST_FOLDER = 1


@dataclass(frozen=True, slots=True)
class Mix:
    """What clients do, as weights and chances.

    Args:
        deliver: Deliver a message.
        flag: Mark a message as read, or give it a flag.
        move: Move a message to another folder.
        delete: Delete a message.
        rename: Rename a folder.
        rewrite: Delete a message and put another in its place, under the same number.
        return_: How likely a message that was moved is moved back in the same transaction.
        longest: Most operations of one transaction.
        rollback: How likely a transaction is given up at its end.
        nested: How likely an operation runs in a nested transaction, half of which are given up.
    """

    deliver: int = 50
    flag: int = 22
    move: int = 14
    delete: int = 12
    rename: int = 2
    rewrite: int = 3
    return_: float = 0.1
    longest: int = 4
    rollback: float = 0.06
    nested: float = 0.08


@dataclass(eq=False, repr=False)
class Client:
    """One client: a session, and the rows that its transaction sees instead of the committed ones.

    Args:
        engine: Where it works.
        mailboxes: What it works on.
        journal: Where commits are noted.
        session: Its session.
        chance: Decides what it does.
        mix: What it does.
        committed: Called with the place of every commit.
    """

    engine: Engine
    mailboxes: Mailboxes
    journal: JournalWriter
    session: Session
    chance: Random
    mix: Mix = Mix()
    committed: Callable[[int], None] = lambda _place: None
    operations: int = 0
    """Rows that were inserted, replaced or deleted, taken back ones too."""
    _pending: dict[tuple[str, int], tuple[MailboxRows, Values | None]] = field(default_factory=dict)
    _running: Iterator[None] | None = None

    def step(self) -> bool:
        """Do one row operation, or end the transaction.

        Returns:
            Whether the transaction has ended.
        """
        if self._running is None:
            self._running = self._transaction()
        if next(self._running, self) is self:
            self._running = None
            return True
        return False

    def abandon(self) -> None:
        """Give up the transaction that is under way."""
        self._running = None
        self._pending = {}
        while self.session.level:
            self.session.roll_back()

    def add_mailbox(self, number: int, name: str) -> None:
        """Make a mailbox with its tables and folders, in one transaction."""
        database, session = self.mailboxes.database, self.session
        session.begin()
        folders = MailboxRows(database.create_table(session, folder_table(number)))
        messages = MailboxRows(database.create_table(session, message_table(number)))
        mailbox = Mailbox(number, folders, messages)
        guid = self.chance.randbytes(16)
        row: Values = {"MailboxNumber": number, "LastDelivery": 0, "MessageCount": 0, "MessageSize": 0}
        row |= {"NextDocumentId": 1, "DisplayName": name, "MailboxGuid": guid}
        self._insert(self.mailboxes.rows, number, row)
        for identifier, folder in enumerate(FOLDERS, _FIRST_FOLDER):
            values: Values = {"FolderId": identifier, "MessageCount": 0, "UnreadCount": 0, "LastModified": 0}
            self._insert(folders, identifier, values | {"DisplayName": folder})
        self.mailboxes.by_number[number] = mailbox
        self._commit()

    def deliver(self, count: int, *, durable: bool = True) -> int:
        """Deliver so many messages in one transaction.

        Returns:
            Bytes of their bodies.
        """
        self.session.begin()
        total = 0
        for _ in range(count):
            mailbox = self._mailbox()
            body = self.mailboxes.bodies.draw()
            total += len(body)
            self._deliver(mailbox, body)
        self._commit(durable=durable)
        return total

    def _transaction(self) -> Iterator[None]:
        self.session.begin()
        try:
            for _ in range(self.chance.randint(1, self.mix.longest)):
                yield from self._one_operation()
        except (WriteConflict, KeyNotFound):
            # Somebody else works on the row, or has taken it away: the client gives up, as a mail client would.
            self._roll_back()
            return
        if self.chance.random() < self.mix.rollback:
            self._roll_back()
        else:
            self._commit()

    def _one_operation(self) -> Iterator[None]:
        nested = self.chance.random() < self.mix.nested
        before = dict(self._pending)
        if nested:
            self.session.begin()
        mix = self.mix
        kinds = (
            self._some_delivery,
            self._some_flag,
            self._some_move,
            self._some_deletion,
            self._some_rename,
            self._some_rewriting,
        )
        weights = (mix.deliver, mix.flag, mix.move, mix.delete, mix.rename, mix.rewrite)
        for _ in self.chance.choices(kinds, weights)[0](self._mailbox()):
            yield
        if not nested:
            return
        if self.chance.random() < 0.5:
            self.session.roll_back()
            self._pending = before
        else:
            self.session.commit()

    def _mailbox(self) -> Mailbox:
        numbers = self.mailboxes.rows.order
        return self.mailboxes.by_number[self.chance.choice(numbers)]

    def _some_delivery(self, mailbox: Mailbox) -> Iterator[None]:
        self._deliver(mailbox, self.mailboxes.bodies.draw())
        yield

    def _deliver(self, mailbox: Mailbox, body: bytes) -> None:
        now = int(self.engine.clock().timestamp() * 1000)
        folder = _FIRST_FOLDER
        document, mailbox.next_document = mailbox.next_document, mailbox.next_document + 1
        values: Values = {
            "DocumentId": document,
            "FolderId": folder,
            "Received": now,
            "Size": len(body),
            "IsRead": False,
            "Flags": 0,
            "ChangeNumber": document,
            "Subject": self.mailboxes.bodies.subject(document),
            "Sender": f"sender{self.chance.randrange(500)}@example.com",
            "Body": body,
        }
        self._count(mailbox, folder, 1, 1, now)
        owner = self._get(self.mailboxes.rows, mailbox.number)
        assert owner is not None
        changes: Values = {
            "LastDelivery": now,
            "MessageCount": _number(owner, "MessageCount") + 1,
            "MessageSize": _number(owner, "MessageSize") + len(body),
            "NextDocumentId": document + 1,
        }
        self._replace(self.mailboxes.rows, mailbox.number, changes)
        self._insert(mailbox.messages, document, values)

    def _some_flag(self, mailbox: Mailbox) -> Iterator[None]:
        document, values = self._some_message(mailbox)
        if values is None:
            return
        if values["IsRead"]:
            self._replace(mailbox.messages, document, {"Flags": self.chance.randrange(1 << 16)})
        else:
            self._count(mailbox, _number(values, "FolderId"), 0, -1, 0)
            self._replace(mailbox.messages, document, {"IsRead": True})
        yield

    def _some_move(self, mailbox: Mailbox) -> Iterator[None]:
        document, values = self._some_message(mailbox)
        if values is None:
            return
        source, target = _number(values, "FolderId"), self.chance.randrange(len(FOLDERS)) + _FIRST_FOLDER
        if source == target:
            return
        unread = 0 if values["IsRead"] else 1
        self._replace(mailbox.messages, document, {"FolderId": target, "ChangeNumber": document + 1})
        yield
        if self.chance.random() < self.mix.return_:
            self._replace(mailbox.messages, document, {"FolderId": source})
            yield
            return
        self._count(mailbox, source, -1, -unread, 0)
        yield
        self._count(mailbox, target, 1, unread, 0)
        yield

    def _some_deletion(self, mailbox: Mailbox) -> Iterator[None]:
        document, values = self._some_message(mailbox)
        if values is None:
            return
        self._delete(mailbox.messages, document)
        yield
        self._count(mailbox, _number(values, "FolderId"), -1, 0 if values["IsRead"] else -1, 0)
        yield

    def _some_rewriting(self, mailbox: Mailbox) -> Iterator[None]:
        document, values = self._some_message(mailbox)
        if values is None:
            return
        self._delete(mailbox.messages, document)
        yield
        body = self.mailboxes.bodies.draw()
        self._insert(mailbox.messages, document, {**values, "Size": len(body), "Body": body})
        yield

    def _some_rename(self, mailbox: Mailbox) -> Iterator[None]:
        """A name of another length: the row grows or shrinks."""
        identifier = self.chance.choice(mailbox.folders.order)
        name = FOLDERS[identifier - _FIRST_FOLDER] + " renamed" * self.chance.randrange(20)
        self._replace(mailbox.folders, identifier, {"DisplayName": name})
        yield

    def _count(self, mailbox: Mailbox, folder: int, messages: int, unread: int, moment: int) -> None:
        values = self._get(mailbox.folders, folder)
        assert values is not None
        changes: Values = {
            "MessageCount": _number(values, "MessageCount") + messages,
            "UnreadCount": _number(values, "UnreadCount") + unread,
            "LastModified": max(moment, _number(values, "LastModified")),
        }
        self._replace(mailbox.folders, folder, changes)

    def _some_message(self, mailbox: Mailbox) -> tuple[int, Values | None]:
        if not mailbox.messages.order:
            return 0, None
        document = self.chance.choice(mailbox.messages.order)
        return document, self._get(mailbox.messages, document)

    def _get(self, rows: MailboxRows, identifier: int) -> Values | None:
        pending = self._pending.get((rows.table.name, identifier))
        return pending[1] if pending is not None else rows.rows.get(identifier)

    def _insert(self, rows: MailboxRows, identifier: int, values: Values) -> None:
        stored = rows.table.insert(self.session, values)
        body, kept = values.get("Body"), stored.get("Body")
        if isinstance(kept, Separated) and isinstance(body, bytes):
            self.mailboxes.digests[rows.table.name, kept.identifier] = digest_of(body)
        self._note(rows, identifier, stored)

    def _replace(self, rows: MailboxRows, identifier: int, changes: Values) -> None:
        before = self._get(rows, identifier)
        if before is None:
            raise KeyNotFound(str(identifier))
        self._note(rows, identifier, rows.table.replace(self.session, before, changes))

    def _delete(self, rows: MailboxRows, identifier: int) -> None:
        before = self._get(rows, identifier)
        if before is None:
            raise KeyNotFound(str(identifier))
        rows.table.delete(self.session, before)
        self._note(rows, identifier, None)

    def _note(self, rows: MailboxRows, identifier: int, values: Values | None) -> None:
        self.operations += 1
        self._pending[rows.table.name, identifier] = (rows, values)

    def _roll_back(self) -> None:
        while self.session.level:
            self.session.roll_back()
        self._pending = {}

    def _commit(self, *, durable: bool = True) -> None:
        place = self.session.commit()
        changed: list[tuple[str, str, JournalRow | None]] = []
        for (name, identifier), (rows, values) in self._pending.items():
            before = rows.rows.get(identifier)
            known = values if values is not None else before
            if known is None:
                continue  # it came and went in the same transaction
            key = rows.table.key(known).hex()
            changed.append((name, key, None if values is None else self.mailboxes.stated(rows.table, values)))
            if values is not None or before is not None:
                rows.put(identifier, values)
        self._pending = {}
        if not place:
            return
        self.journal.commit(place, changed, self.engine.clock().timestamp())
        self.committed(place)
        if durable:
            self.engine.make_durable()


def _number(values: Values, name: str) -> int:
    value = values[name]
    assert isinstance(value, int)
    return value
