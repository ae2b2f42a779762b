"""Checkpoint files: two equal copies of 4096 bytes that say where recovery has to start."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.ese.errors import EseDamaged
from perdure.ese.headers.attachments import ATTACH_LIST_SIZE, Attachment, attachments
from perdure.ese.headers.copies import CopiesState, chosen_copy
from perdure.ese.structures import EngineParameters, Fields, LogPosition, LogTime, Signature

__all__ = ["CheckpointHeader", "read_checkpoint"]

_COPY = 4096
_HAS_ATTACH_LIST = 1


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """Every field of a checkpoint.

    Args:
        checksum: XOR32 of the copy.
        last_full_checkpoint: Checkpoint of the last full backup.
        checkpoint: Where recovery has to start.
        signature: Identity of the log stream.
        parameters: How the engine was set up.
        last_full_backup: Log position of the last full backup.
        last_full_backup_time: When it was.
        last_incremental_backup: Log position of the last incremental backup.
        last_incremental_backup_time: When it was.
        version: 1 if an attach list follows.
        consistency: Log position up to which databases are consistent.
        file_type: 4; old files hold 0.
        attached: Databases attached at the checkpoint.
    """

    checksum: int
    last_full_checkpoint: LogPosition
    checkpoint: LogPosition
    signature: Signature
    parameters: EngineParameters
    last_full_backup: LogPosition
    last_full_backup_time: LogTime
    last_incremental_backup: LogPosition
    last_incremental_backup_time: LogTime
    version: int
    consistency: LogPosition
    file_type: int
    attached: tuple[Attachment, ...]


def read_checkpoint(content: bytes, file: str) -> tuple[CheckpointHeader, CopiesState]:
    """Read both copies of a checkpoint and decode the one that counts.

    Args:
        content: The whole file, 8192 bytes.
        file: Its name, for messages.

    Raises:
        EseDamaged: Neither copy is sound.
    """
    chosen, state = chosen_copy(content[:_COPY], content[_COPY : 2 * _COPY])
    if chosen is None:
        raise EseDamaged(
            f"{file}: both copies of the checkpoint are damaged; recovery has to start with the oldest log",
            code="ese-header-damaged",
            hint="the databases' headers say which logs they need; the checkpoint only saves time",
        )
    at = Fields(chosen)
    version = at.u8(647)
    header = CheckpointHeader(
        checksum=at.u32(0),
        last_full_checkpoint=at.position(4),
        checkpoint=at.position(12),
        signature=at.signature(20),
        parameters=at.parameters(48),
        last_full_backup=at.position(615),
        last_full_backup_time=at.time(623),
        last_incremental_backup=at.position(631),
        last_incremental_backup_time=at.time(639),
        version=version,
        consistency=at.position(648),
        file_type=at.u32(667),
        attached=attachments(chosen[679 : 679 + ATTACH_LIST_SIZE]) if version & _HAS_ATTACH_LIST else (),
    )
    return header, state
