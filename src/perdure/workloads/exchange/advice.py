"""What an administrator is to do about each break of a log; perdure itself compares and goes on in every case."""

from __future__ import annotations

__all__ = ["advice_for"]

_ADVICE = {
    "stream-reset": "find out who deleted or moved the logs; with Exchange running, nobody should",
    "database-repaired": "compare mailboxes with a recovery point from before the repair: what it threw away is there",
    "database-replaced": "if that is meant, protect the new database as a data source of its own; if not, recover the "
    "old one",
    "log-missing": "let only one product truncate the log of a database, keep circular logging off, and let nobody "
    "delete logs by hand",
    "log-foreign": "if the right log still lies somewhere, put it back; else nothing",
    "log-diverged": "nothing; what was lost in the failover is in the recovery points before it",
    "log-damaged": "look at the disk that the log is on: recovery of production would stop there too",
    "circular-logging": "Set-MailboxDatabase -CircularLoggingEnabled $false, then dismount and mount; until then there "
    "are recovery points at express fulls only",
    "tracking-lost": "nothing; the comparison is a new beginning",
}


def advice_for(code: str) -> str:
    """What to do about a break with this code, half a sentence."""
    return _ADVICE[code]
