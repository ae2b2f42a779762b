"""The header of a database, which is stored in its first page and again in its second."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from perdure.ese.checksums import xor32
from perdure.ese.errors import EseDamaged, EseUnsupported, NotAnEseFile
from perdure.ese.headers.copies import CopiesState, chosen_copy
from perdure.ese.headers.kinds import DATABASE_MAGIC, HEADER_PAGE_SIZES, FileType
from perdure.ese.structures import BackupMark, EventCount, Fields, LogPosition, LogTime, Signature

__all__ = ["DatabaseHeader", "DatabaseState", "newer_than_known", "read_database_header"]

VERSION = 0x620
_NEWEST_UPDATE = 290
"""Highest major update of the format that the specification describes."""


class DatabaseState(IntEnum):
    """How the engine left a database."""

    JUST_CREATED = 1
    DIRTY_SHUTDOWN = 2
    CLEAN_SHUTDOWN = 3
    BEING_CONVERTED = 4
    FORCE_DETACH = 5
    INCREMENTAL_RESEED_IN_PROGRESS = 6
    DIRTY_AND_PATCHED = 7
    REVERT_IN_PROGRESS = 8

    @property
    def text(self) -> str:
        """As people know it: ``clean shutdown``."""
        return self.name.replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """Every field of a database header, in the order in which they are stored.

    Log generations are 0 where no log is meant. ``page_size`` is in bytes. Positions and times that were never set
    are false.
    """

    checksum: int
    magic: int
    version: int
    attribute: int
    dbtime: int
    signature: Signature
    state_code: int
    consistent: LogPosition
    consistent_time: LogTime
    attach_time: LogTime
    attach: LogPosition
    detach_time: LogTime
    detach: LogPosition
    dbid: int
    log_signature: Signature
    previous_full_backup: BackupMark
    previous_incremental_backup: BackupMark
    current_full_backup: BackupMark
    flags: int
    last_objid: int
    os_version: tuple[int, int, int, int]
    update_major: int
    page_size: int
    repairs: EventCount
    scrub_dbtime: int
    scrub_time: LogTime
    min_required: int
    max_required: int
    current_snapshot_backup: BackupMark
    created_version: tuple[int, int]
    max_required_log_time: LogTime
    previous_full_backup_type: int
    previous_incremental_backup_type: int
    repairs_before: int
    ecc_fixes: EventCount
    failed_ecc_fixes: EventCount
    bad_checksums: EventCount
    max_committed: int
    previous_copy_backup: BackupMark
    previous_differential_backup: BackupMark
    previous_copy_backup_type: int
    previous_differential_backup_type: int
    incremental_reseeds: EventCount
    page_patches: EventCount
    sort_version: int
    previous_scan: LogTime
    scan_start: LogTime
    scanned_to: int
    recovering_generation: int
    extensions: EventCount
    shrinks: EventCount
    reattach_time: LogTime
    reattach: LogPosition
    trims: int
    header_flush_signature: Signature
    flush_map_signature: Signature
    min_consistent: int
    update_minor: int
    engine_format: int
    scan_highest_page: int
    last_resize: LogPosition
    file_type: int
    newest_max_required_log_time: LogTime
    pre_redo_min_consistent: int
    pre_redo_min_required: int
    revert_snapshot_signature: Signature
    reverts: bytes

    @property
    def state(self) -> DatabaseState | None:
        """How the engine left it, ``None`` if the number has no meaning."""
        known = DatabaseState.JUST_CREATED <= self.state_code <= DatabaseState.REVERT_IN_PROGRESS
        return DatabaseState(self.state_code) if known else None

    @property
    def state_text(self) -> str:
        """The state in words."""
        return self.state.text if self.state else f"unknown state {self.state_code}"

    @property
    def clean(self) -> bool:
        """Whether it can be used without any log."""
        return self.state is DatabaseState.CLEAN_SHUTDOWN

    @property
    def format_text(self) -> str:
        """The version as eseutil shows it: ``0x620,20,0``."""
        return f"{self.version:#x},{self.update_major},{self.update_minor}"

    @property
    def required_generations(self) -> range:
        """The logs without which it cannot be used; empty for a clean database."""
        if self.clean or self.min_required <= 0:
            return range(0)
        return range(self.min_required, self.max_required + 1)

    @property
    def committed_generations(self) -> range:
        """The logs after the required ones that hold committed transactions."""
        if self.clean or self.max_committed <= self.max_required:
            return range(0)
        return range(self.max_required + 1, self.max_committed + 1)

    @property
    def backup_is_running(self) -> bool:
        """Whether this copy was taken by a backup, whose mark stands in it."""
        return bool(self.current_full_backup) or bool(self.current_snapshot_backup)


def read_database_header(head: bytes, file: str) -> tuple[DatabaseHeader, CopiesState]:
    """Read both copies of a database's header and decode the one that counts.

    Args:
        head: The first 64 KiB of the file, or all of a smaller one.
        file: Its name, for messages.

    Raises:
        NotAnEseFile: Nothing says that it is a database.
        EseDamaged: Neither copy is sound.
        EseUnsupported: The format has another major version.
    """
    size = _page_size(head)
    if size is None:
        if not any(_has_magic(head, at) for at in (0, *HEADER_PAGE_SIZES)):
            raise NotAnEseFile(
                f"{file} is not an ESE database: neither copy of a header is there", hint="name an .edb file"
            )
        raise EseDamaged(
            f"{file}: both copies of the database header are damaged; nothing in the file can be trusted",
            code="ese-header-damaged",
            hint="recover the file from a recovery point",
        )
    content, state = chosen_copy(head[:size], head[size : 2 * size])
    assert content is not None
    header = _decode(content)
    if header.version != VERSION:
        raise EseUnsupported(
            f"{file} has database format {header.format_text}; only {VERSION:#x} is known",
            code="ese-version-unsupported",
            hint="use a newer perdure",
        )
    return header, state


def newer_than_known(header: DatabaseHeader) -> bool:
    """Whether the file was written by an engine that is newer than what this library was written for."""
    return header.update_major > _NEWEST_UPDATE


def _has_magic(head: bytes, at: int) -> bool:
    return len(head) >= at + 8 and int.from_bytes(head[at + 4 : at + 8], "little") == DATABASE_MAGIC


def _page_size(head: bytes) -> int | None:
    """The page size that a sound copy of the header states, ``None`` if no copy is sound.

    The primary copy starts the file; the shadow starts where the page size says, which a damaged primary cannot tell.
    """
    for size in HEADER_PAGE_SIZES:
        for at in (0, size):
            copy = head[at : at + size]
            if (
                len(copy) == size
                and _has_magic(copy, 0)
                and (Fields(copy).u32(236) or 4096) == size
                and Fields(copy).u32(0) == xor32(copy)
            ):
                return size
    return None


def _decode(content: bytes) -> DatabaseHeader:
    at = Fields(content)
    return DatabaseHeader(
        checksum=at.u32(0),
        magic=at.u32(4),
        version=at.u32(8),
        attribute=at.i32(12),
        dbtime=at.u64(16),
        signature=at.signature(24),
        state_code=at.u32(52),
        consistent=at.position(56),
        consistent_time=at.time(64),
        attach_time=at.time(72),
        attach=at.position(80),
        detach_time=at.time(88),
        detach=at.position(96),
        dbid=at.u32(104),
        log_signature=at.signature(108),
        previous_full_backup=at.backup(136),
        previous_incremental_backup=at.backup(160),
        current_full_backup=at.backup(184),
        flags=at.u32(208),
        last_objid=at.u32(212),
        os_version=(at.u32(216), at.u32(220), at.u32(224), at.u32(228)),
        update_major=at.u32(232),
        page_size=at.u32(236) or 4096,
        repairs=at.event(240, before=False),
        scrub_dbtime=at.u64(280),
        scrub_time=at.time(288),
        min_required=at.i32(296),
        max_required=at.i32(300),
        current_snapshot_backup=at.backup(316),
        created_version=(at.u32(340), at.u32(344)),
        max_required_log_time=at.time(348),
        previous_full_backup_type=at.u32(356),
        previous_incremental_backup_type=at.u32(360),
        repairs_before=at.u32(364),
        ecc_fixes=at.event(368),
        failed_ecc_fixes=at.event(384),
        bad_checksums=at.event(400),
        max_committed=at.i32(416),
        previous_copy_backup=at.backup(420),
        previous_differential_backup=at.backup(444),
        previous_copy_backup_type=at.u32(468),
        previous_differential_backup_type=at.u32(472),
        incremental_reseeds=at.event(476),
        page_patches=at.event(492),
        sort_version=at.u64(508),
        previous_scan=at.time(516),
        scan_start=at.time(524),
        scanned_to=at.u32(532),
        recovering_generation=at.i32(536),
        extensions=at.event(540, before=False),
        shrinks=at.event(552, before=False),
        reattach_time=at.time(564),
        reattach=at.position(572),
        trims=at.u32(580),
        header_flush_signature=at.signature(584),
        flush_map_signature=at.signature(612),
        min_consistent=at.i32(640),
        update_minor=at.u32(644),
        engine_format=at.u32(648),
        scan_highest_page=at.u32(652),
        last_resize=at.position(656),
        file_type=at.u32(667) or FileType.DATABASE,
        newest_max_required_log_time=at.time(672),
        pre_redo_min_consistent=at.i32(680),
        pre_redo_min_required=at.i32(684),
        revert_snapshot_signature=at.signature(688),
        reverts=content[716:748],
    )
