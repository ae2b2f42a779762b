"""A log stream that grows fast: logs that a simulated store wrote are copied as the next generations of its stream."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import block_checksums, xor32
from perdure.ese.headers.log import read_log_header
from perdure.testing.ese_logs import log_time, segment_checksums
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.store import InformationStore

__all__ = ["NAME", "GrowingStream"]

NAME = "Mailbox-01"
_TEMPLATES = 16
_SEGMENT = 4096
_GENERATION, _BEGUN = slice(12, 16), slice(16, 24)


@dataclass
class GrowingStream:
    """A cleanly dismounted store in a folder, and a stream that goes on without it.

    Nothing replays what is added: it is for what reads, checks and ships log.

    Args:
        folder: Where the store is made.
    """

    folder: Path
    logs: Path = field(init=False)
    generation: int = field(init=False)
    _templates: list[NDArray[np.uint8]] = field(init=False)

    def __post_init__(self) -> None:
        store = InformationStore(self.folder, StorePlan(page_size=32768, layout=LogLayout.BESIDE, seed=7))
        self.logs = store.add_database(NAME, mailboxes=8).log_folder
        while len(self._complete()) < _TEMPLATES:
            store.work(200)
        store.stop()
        # The stream goes on from the last complete log, not from what was being written.
        (self.logs / "E00.log").unlink()
        complete = self._complete()
        self._templates = [np.fromfile(path, np.uint8).reshape(-1, _SEGMENT) for path in complete[1:]]
        last = complete[-1].read_bytes()
        header = read_log_header(last, "")
        self.generation = header.generation
        self._created, self._checksums = header.created.raw, segment_checksums(last)
        self._now = datetime.now(UTC)

    def grow(self, logs: int) -> None:
        """Add complete logs, and begin the one after them."""
        for number in range(self.generation + 1, self.generation + logs + 1):
            content = self._log(number)
            (self.logs / f"E00{number:08X}.log").write_bytes(content.tobytes())
            self._checksums = int(np.bitwise_xor.reduce(content[1:, :8].copy().view("<u8")[_used(content)][:, 0]))
        self.generation += logs
        created = self._created
        (self.logs / "E00.log").write_bytes(self._log(self.generation + 1)[:1].tobytes().ljust(1 << 20, b"\0"))
        self._created = created

    def _log(self, number: int) -> NDArray[np.uint8]:
        """A template as another generation: the checksums of all its segments are made anew."""
        content = self._templates[number % len(self._templates)].copy()
        self._now += timedelta(seconds=0.9)
        created = log_time(self._now)
        used = np.flatnonzero(_used(content)) + 1
        segments = content[used]
        segments[:, _GENERATION] = np.frombuffer(struct.pack("<i", number), np.uint8)
        segments[:, _BEGUN] = np.frombuffer(created, np.uint8)
        sums = block_checksums(np.ascontiguousarray(segments), used.astype(np.uint32))
        segments[:, :8] = sums.astype("<u8").view(np.uint8).reshape(-1, 8)
        content[used] = segments
        # Behind the last one lies its shadow, which says the same.
        content[used[-1] + 1 :] = 0
        header = bytearray(content[0].tobytes())
        struct.pack_into("<i", header, 4, number)
        header[16:24], header[24:32] = created, self._created
        struct.pack_into("<Q", header, 653, self._checksums)
        struct.pack_into("<I", header, 0, xor32(bytes(header)))
        content[0] = np.frombuffer(bytes(header), np.uint8)
        self._created = created
        return content

    def _complete(self) -> list[Path]:
        return sorted(self.logs.glob("E00????????.log"))


def _used(content: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which segments behind the header hold records: they state their own number."""
    stated = content[1:, 10:12].copy().view("<u2")[:, 0]
    found: NDArray[np.bool_] = stated == np.arange(1, len(content))
    return found
