"""Errors of replay: what does not fit together, and where in the log and in the database."""

from __future__ import annotations

from perdure.ese.errors import EseDamaged, EseUnsupported
from perdure.model.errors import BadInput, NotFound, Refused

__all__ = [
    "Contradiction",
    "Incapable",
    "NoSuchDatabase",
    "PositionNotReached",
    "ReplayImpossible",
    "ReplayInconsistent",
    "ReplayRefused",
    "ReplayUnsupported",
]


class ReplayInconsistent(EseDamaged):
    """Image and logs contradict each other, so replaying them would make a wrong database."""

    default_code = "ese-replay-inconsistent"


class ReplayUnsupported(EseUnsupported):
    """A record that changes pages in a way that this library does not know."""

    default_code = "ese-replay-unsupported"


class ReplayRefused(Refused):
    """Replay would write over something, or would make a database that was never consistent."""

    default_code = "ese-replay-refused"


class ReplayImpossible(EseDamaged):
    """Logs that the replay needs are missing or damaged."""

    default_code = "ese-required-log-missing"


class PositionNotReached(BadInput):
    """The wanted position lies outside of what the logs hold."""

    default_code = "ese-replay-position"


class NoSuchDatabase(NotFound):
    """The logs hold nothing about the database, or do not make it from nothing."""

    default_code = "ese-replay-no-database"


class Contradiction(Exception):
    """What one record says does not fit what is there; whoever reads the records says which record it is.

    Args:
        what: What does not fit, in words.
        page: The page that it is about, 0 for none.
    """

    def __init__(self, what: str, page: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.page = page

    def __str__(self) -> str:
        return f"page {self.page}: {self.what}" if self.page else self.what


class Incapable(Exception):
    """A record asks for something that is not known well enough to do it."""
