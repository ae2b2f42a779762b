"""What log records say, field by field, as far as the format is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from perdure.ese.headers.attachments import path_text
from perdure.ese.logs.record_types import RECORD_TYPES, Head
from perdure.ese.logs.records import LogRecord
from perdure.ese.structures import Fields, LogPosition, LogTime, Signature

__all__ = ["Detail", "details"]

Detail: TypeAlias = int | str | LogPosition | LogTime | Signature | list[int]


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    offset: int
    kind: str

    @property
    def end(self) -> int:
        return self.offset + _SIZES[self.kind]


_SIZES = {"u8": 1, "u16": 2, "u32": 4, "i32": 4, "u64": 8, "lgpos": 8, "time": 8, "sig": 28}


def _fields(text: str) -> list[_Field]:
    """Fields written as ``name@offset:kind``."""
    found = []
    for word in text.split():
        name, _, rest = word.partition("@")
        offset, _, kind = rest.partition(":")
        found.append(_Field(name, int(offset), kind))
    return found


_PAGE = _fields(
    "process@1:u16 dbid@3:u8 page@4:u32 dbtime@8:u64 dbtime_before@16:u64 transaction@24:u32 level@28:u8 line@29:u16 "
    "flags@31:u8"
)
_NODE = _fields("rce@32:u32 root@36:u32 objid@40:u32")
_PROCESS, _LEVEL = "process@1:u16", "level@3:u8"

_SPECIFIC: dict[int, list[_Field]] = {
    **dict.fromkeys((2, 18), _fields("position@1:lgpos redo_from@9:lgpos hard@17:u8")),
    **dict.fromkeys((50, 52, 80), _fields("position@1:lgpos redo_from@9:lgpos hard@17:u8 time@18:time")),
    **dict.fromkeys((5, 6, 7), _fields(f"{_PROCESS} {_LEVEL}")),
    **dict.fromkeys((8, 9, 53), _fields(f"{_PROCESS} {_LEVEL} transaction@4:u32")),
    10: _fields(f"{_PROCESS} transaction@3:u32"),
    **dict.fromkeys((11, 12, 13), _fields(f"{_PROCESS} dbtime@3:u64")),
    14: _fields(f"{_PROCESS} dbid@3:u8 grbit@4:u32 maximum_pages@8:u32 signature@12:sig flags@42:u8"),
    15: _fields(
        f"{_PROCESS} dbid@3:u8 maximum_pages@4:u32 consistent@8:lgpos signature@16:sig log_signature@44:sig flags@74:u8"
    ),
    16: _fields(f"{_PROCESS} dbid@3:u8 flags@6:u8"),
    24: _fields("objid@32:u32 owned_root@36:u32 available_root@40:u32 parent@44:u32 primary@48:u32 page_flags@52:u32"),
    25: _fields("objid@32:u32 parent@36:u32 primary@40:u32 page_flags@44:u32"),
    26: _fields(
        "objid@32:u32 owned_root@36:u32 available_root@40:u32 parent@44:u32 second_first@48:u32 primary@52:u32 "
        "second@56:u32"
    ),
    **dict.fromkeys(
        (27, 62),
        _fields(
            "new@32:u32 right@36:u32 right_dbtime_before@40:u64 parent@48:u32 parent_dbtime_before@52:u64 root@60:u32 "
            "objid@64:u32 split_type@68:u8 operation@69:u8 operation_line@70:u16 split_line@72:u16 lines@74:u16"
        ),
    ),
    **dict.fromkeys(
        (28, 63),
        _fields(
            "right@32:u32 right_dbtime_before@36:u64 left@44:u32 left_dbtime_before@48:u64 parent@56:u32 "
            "parent_dbtime_before@60:u64 root@68:u32 objid@72:u32 merge_line@82:u16 merge_flags@84:u8 merge_type@85:u8"
        ),
    ),
    29: _fields("suffix_size@44:u16 prefix_size@46:u16 data_size@48:u16"),
    30: _fields("key_size@44:u16 data_size@46:u16"),
    31: _fields("key_size@44:u16 data_size@46:u16 replace_rce@48:u32"),
    **dict.fromkeys((33, 34), _fields("stored_size@44:u16 old_size@46:u16 new_size@48:u16")),
    36: _fields("key_size@44:u16 data_size@46:u16"),
    37: _fields("key_size@44:u16 data_size@46:u16 delta@48:i32"),
    38: _fields("size@44:u16"),
    58: _fields(
        "objid@32:u32 owned_root@36:u32 available_root@40:u32 parent@44:u32 second_first@48:u32 primary@52:u32 "
        "second@56:u32 available_bits@60:u32 page_flags@64:u32"
    ),
    65: _fields(
        "destination@32:u32 left@36:u32 right@40:u32 parent@44:u32 left_dbtime_before@48:u64 "
        "right_dbtime_before@56:u64 parent_dbtime_before@64:u64 root@72:u32 objid@76:u32 parent_line@80:u32 "
        "move_flags@84:u32"
    ),
    66: _fields("dbid@1:u8 page@2:u32 dbtime@6:u64"),
    68: _fields("dbid@5:u8 last_page@6:u32"),
    **dict.fromkeys((78, 94), _fields("dbid@1:u8 last_page@2:u32 removed@6:u32")),
    79: _fields(f"{_PROCESS} dbid@3:u8"),
    81: _fields("dbid@1:u8 first_page@2:u32 count@6:u32"),
    92: _fields("dbid@1:u8 version@2:u32 update_major@6:u32 update_minor@10:u32"),
    95: _fields(f"{_PROCESS} dbid@3:u8 page@4:u32 objid@8:u32 dbtime@12:u64"),
    96: _fields("dbtime@1:u64 dbid@9:u8 objid@10:u32 process@14:u16"),
    97: _fields("dbid@1:u8"),
    98: _fields("dbid@1:u8 page@2:u32 source@6:u8 page_dbtime@7:u64 dbtime@15:u64 checksum@23:u32"),
    99: _fields("dbid@1:u8 last_page@2:u32 removed@6:u32 dbtime@10:u64"),
    100: _fields("dbid@1:u8 first_page@2:u32 count@6:u32 flags@10:u8"),
    101: _fields("dbid@1:u8 first_page@2:u32 count@6:u32 flags@10:u8 dbtime@11:u64"),
}
_MACRO_INFO, _MACRO_INFO_2 = 67, 73
_CREATE, _ATTACH, _DETACH = 14, 15, 16


def details(record: LogRecord) -> dict[str, Detail]:
    """The fields of a record, by name; numbers of pages, objects and transactions as they are stored."""
    kind = RECORD_TYPES.get(record.type)
    at = Fields(record.content)
    found: dict[str, Detail] = {}
    if kind is not None and kind.head is not Head.NONE:
        fields = _PAGE + (_NODE if kind.head is Head.NODE else [])
        found.update((field.name, _read(at, field)) for field in fields)
    there = [field for field in _SPECIFIC.get(record.type, []) if field.end <= len(record.content)]
    found.update((field.name, _read(at, field)) for field in there)
    if record.type == _MACRO_INFO:
        found["pages"] = _numbers(record.content, 5)
    elif record.type == _MACRO_INFO_2:
        found["dbid"], found["pages"] = at.u8(5), _numbers(record.content, 10)
    elif record.type in (_CREATE, _ATTACH, _DETACH):
        found["path"] = _path(record, at)
    return found


def _read(at: Fields, field: _Field) -> Detail:
    readers: dict[str, Callable[[int], Detail]] = {
        "u8": at.u8,
        "u16": at.u16,
        "u32": at.u32,
        "i32": at.i32,
        "u64": at.u64,
        "lgpos": at.position,
        "time": at.time,
        "sig": at.signature,
    }
    return readers[field.kind](field.offset)


def _numbers(content: bytes, start: int) -> list[int]:
    return [int.from_bytes(content[place : place + 4], "little") for place in range(start, len(content) - 3, 4)]


def _path(record: LogRecord, at: Fields) -> str:
    if record.type == _CREATE:
        start, utf16 = (47 if at.u8(42) & 4 else 43), at.u8(42) & 8
    elif record.type == _ATTACH:
        start, utf16 = 75, at.u8(74) & 8
    else:
        start, utf16 = 7, at.u8(6) & 0x10
    return path_text(record.content[start:], utf16=bool(utf16))
