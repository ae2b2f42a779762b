"""How an engine is set up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perdure.testing.information_store.log_stream import SEGMENTS_PER_LOG

__all__ = ["EngineSettings"]


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is set up.

    Args:
        log_folder: Where its log and checkpoint lie.
        base: First three letters of the names of its logs.
        page_size: Of its databases, bytes.
        circular: Whether it deletes logs that no recovery of its own needs.
        was_circular: Whether it once did.
        checkpoint_depth: Log generations after which a changed page is written at the latest.
        log_resilience: Newest generations that may be lost without making a database unusable.
        initial_pages: Of a new database.
        cached_pages: Of a database, in memory.
        write_chance: How likely some dirty pages are written after a transaction.
        seed: Decides what is written when.
        log_segments: Of a log file, its header included; 256 make the 1 MiB of Exchange.
        commit_group: Commits that wait for each other and become durable with one write of the log.
    """

    log_folder: Path
    base: str = "E00"
    page_size: int = 32768
    circular: bool = False
    checkpoint_depth: int = 20
    log_resilience: int = 1
    initial_pages: int = 256
    cached_pages: int = 4096
    write_chance: float = 0.05
    seed: int = 0
    was_circular: bool = False
    log_segments: int = SEGMENTS_PER_LOG
    commit_group: int = 1
