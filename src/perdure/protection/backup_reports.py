"""What is kept here of a source whose engine hears of backups: its truncation ledger, and what needs a person."""

from __future__ import annotations

from perdure.model.errors import ImageFailed
from perdure.model.truncation import TruncationLedger
from perdure.protection.protected import Protected
from perdure.workloads.contract import BackupSession, Image, Session

__all__ = ["BackupReports"]


class BackupReports:
    """Does nothing for sessions whose engine does not want to hear of backups.

    Args:
        protected: The source.
        session: Its session; is given the ledger as it was kept.
    """

    def __init__(self, protected: Protected, session: Session) -> None:
        self._home, self._source = protected.home, protected.source.id
        self._session = session if isinstance(session, BackupSession) else None
        self._kept: TruncationLedger | None = None
        self._attention: str | None = None
        if self._session is not None:
            self._kept = self._session.ledger = self._home.ledger(self._source)

    def complete(self, image: Image) -> None:
        """Tell the engine that an image is durable, and keep what it did."""
        if self._session is not None:
            self._session.complete_image(image)
            self.keep()

    def keep(self) -> None:
        """Keep the ledger and the warning as they are now, if they changed."""
        if self._session is None:
            return
        if self._session.ledger != self._kept:
            self._kept = self._session.ledger
            self._home.save_ledger(self._source, self._kept)
        self._note(str(getattr(self._session, "warning", "")))

    def failed(self, what: str, error: ImageFailed) -> None:
        """Keep why no image could be taken, until one is."""
        if self._session is not None:
            self._note(f"{what} failed: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def _note(self, text: str) -> None:
        if text != self._attention:
            self._attention = text
            self._home.note_attention(self._source, text)
