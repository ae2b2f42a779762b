"""What an engine states of itself in the headers of its logs and in its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perdure.ese.structures import LogPosition
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.engine_settings import EngineSettings
from perdure.testing.information_store.header_fields import (
    AttachedDatabase,
    CheckpointFields,
    LogFields,
    parameters_bytes,
)
from perdure.testing.information_store.log_stream import PreviousLog

__all__ = ["EngineStatement", "parameters_of"]

_CIRCULAR_NOW, _WAS_CIRCULAR = 2, 4


def parameters_of(settings: EngineSettings) -> bytes:
    """How an engine is set up, as it notes that."""
    folder = str(settings.log_folder)
    return parameters_bytes(folder, circular=settings.circular, segments=settings.log_segments)


@dataclass(frozen=True, slots=True)
class EngineStatement:
    """An engine at one moment.

    Args:
        settings: How it is set up.
        signature: Of its log stream.
        checkpoint: From where recovery has to start.
        attached: Its databases.
    """

    settings: EngineSettings
    signature: bytes
    checkpoint: LogPosition
    attached: tuple[AttachedDatabase, ...]

    def of_log(self, generation: int, created: bytes, previous: PreviousLog) -> LogFields:
        """The header of a new log."""
        settings = self.settings
        now, was = (_CIRCULAR_NOW if settings.circular else 0), (_WAS_CIRCULAR if settings.was_circular else 0)
        return LogFields(
            generation=generation,
            created=created,
            signature=self.signature,
            page_size=settings.page_size,
            segments=settings.log_segments,
            parameters=parameters_of(settings),
            previous_created=previous.created,
            previous_segments=previous.checksums,
            checkpoint=self.checkpoint,
            flags=now | was,
            attached=self.attached,
        )

    def write_checkpoint(self, disk: Disk, path: Path) -> None:
        """Write both copies of the checkpoint, one durable before the other is touched."""
        fields = CheckpointFields(self.checkpoint, self.signature, parameters_of(self.settings), attached=self.attached)
        content = fields.encode()
        file = disk.open(path)
        half = len(content) // 2
        file.write(0, content[:half])
        file.sync()
        file.write(half, content[half:])
        disk.close(file)
