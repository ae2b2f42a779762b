"""Options of a PostgreSQL data source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perdure.model.errors import BadInput
from perdure.model.points import DataSource
from perdure.workloads.postgresql.slot import Slot

__all__ = ["Options", "parse_bytes"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

WARN_BYTES = 1 << 30


def parse_bytes(text: str) -> int:
    """Read ``64GB``; units are powers of 1024.

    Raises:
        BadInput: It is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"{text!r} is not a size", code="bad-size", hint="write it like 500MB or 64GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _way(text: str) -> str:
    if text not in ("auto", "local", "remote"):
        raise BadInput(f"{text!r} is no way to take images", hint="write auto, local or remote")
    return text


@dataclass(frozen=True, slots=True)
class Options:
    """What a person chose.

    Args:
        warn_bytes: WAL kept on the server of which ``status`` warns.
        give_up_bytes: WAL kept on the server at which the slot is dropped; 0: never.
        application_name: What ``synchronous_standby_names`` knows perdure by.
        images: Where images come from: ``auto``, ``local`` (the disk) or ``remote`` (the replication protocol).
    """

    warn_bytes: int = WARN_BYTES
    give_up_bytes: int = 0
    application_name: str = "perdure"
    images: str = "auto"

    @classmethod
    def of(cls, source: DataSource) -> Options:
        """The options of a source.

        Raises:
            BadInput: One cannot be understood.
        """

        def last(name: str, default: str) -> str:
            return (source.options.get(name) or [default])[-1]

        return cls(
            parse_bytes(last("warn-at", str(WARN_BYTES))),
            parse_bytes(last("give-up-at", "0")),
            last("application-name", "perdure"),
            _way(last("images", "auto")),
        )

    def gives_up(self, slot: Slot) -> bool:
        """Whether the slot keeps more than the person allows."""
        return 0 < self.give_up_bytes < slot.retained

    def warning(self, name: str, slot: Slot) -> str:
        """What to say of a slot that keeps much; empty if it does not."""
        if slot.wal_status in ("unreserved", "lost") or (slot.safe is not None and slot.safe < self.warn_bytes):
            left = f"{slot.safe:,}" if slot.safe is not None else "no"
            return (
                f"the server will soon remove WAL that is not in the pool: the replication slot {name} keeps "
                f"{slot.retained:,} bytes, and max_slot_wal_keep_size leaves {left} more"
            )
        if slot.retained >= self.warn_bytes:
            return f"the replication slot {name} keeps {slot.retained:,} bytes of WAL on the server's disk"
        return ""
