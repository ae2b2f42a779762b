"""Records about the size of the file, and about pages that it does not need any more."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from perdure.ese.editing import EditablePage
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.structures import LogPosition

__all__ = ["SizeRecords"]

_EXTEND, _TRIM, _SHRINKS, _FREED = 68, 81, (78, 94, 99), (100, 101)
_SHRINK_3 = 99
_SCAN_CHECKS = (70, 98)
_SET_VERSION = 92


@dataclass(slots=True)
class SizeRecords:
    """Applies them.

    Args:
        target: The database.
        position: Says where the record at work is.
        last_resize: The last change of the file's size that the image already has.
        version: Format that the database was brought to, (major update, minor update), if a record says so.
    """

    target: ReplayTarget
    position: Callable[[], LogPosition]
    last_resize: LogPosition
    version: tuple[int, int] | None = field(default=None)

    def handlers(self, own: Callable[[int], bool]) -> dict[int, Callable[[bytes, int, int], None]]:
        """What to do for every type; ``own`` says whether the number of a database is that of the target."""

        def only_own(act: Callable[[bytes, int], None], dbid_at: int) -> Callable[[bytes, int, int], None]:
            def handle(log: bytes, at: int, _size: int) -> None:
                if own(log[at + dbid_at]):
                    act(log, at)

            return handle

        return {
            _EXTEND: only_own(self._extend, 5),
            _TRIM: only_own(self._trim, 1),
            **dict.fromkeys(_SHRINKS, only_own(self._shrink, 1)),
            **dict.fromkeys(_FREED, only_own(self._free, 1)),
            _SET_VERSION: only_own(self._set_version, 1),
            _SCAN_CHECKS[0]: only_own(self._scan_check, 5),
            _SCAN_CHECKS[1]: only_own(self._scan_check, 1),
        }

    def _extend(self, log: bytes, at: int) -> None:
        if self.position() < self.last_resize:
            return  # the image was shrunk again after this
        (last,) = struct.unpack_from("<I", log, at + 6)
        self.target.cache.extend(last)

    def _shrink(self, log: bytes, at: int) -> None:
        last, removed = struct.unpack_from("<II", log, at + 2)
        target = self.target
        for number in [number for number in target.pending if number > last]:
            target.forget(number)
        dbtime = struct.unpack_from("<Q", log, at + 10)[0] if log[at] == _SHRINK_3 else 0
        target.dbtime = max(target.dbtime, dbtime)
        if target.may_be_newer and (not self.last_resize or self.position() < self.last_resize):
            # The image has later pages in that place: only those older than the shrinking are gone.
            for number in range(last + 1, min(last + removed, target.cache.page_count) + 1):
                if 0 < target.cache.page(number).dbtime < dbtime:
                    target.cache.put(EditablePage(target.cache.page_size, number, file=target.file))
            return
        target.cache.truncate(last)

    def _trim(self, log: bytes, at: int) -> None:
        first, count = struct.unpack_from("<II", log, at + 2)
        for number in range(first, first + count):
            self.target.forget(number)
            # An image that may be newer can hold a later page in that place.
            if not self.target.may_be_newer and number <= self.target.cache.page_count:
                self.target.cache.put(EditablePage(self.target.cache.page_size, number, file=self.target.file))

    def _free(self, log: bytes, at: int) -> None:
        first, count = struct.unpack_from("<II", log, at + 2)
        for number in [number for number in self.target.pending if first <= number < first + count]:
            self.target.forget(number)

    def _set_version(self, log: bytes, at: int) -> None:
        _version, major, minor = struct.unpack_from("<III", log, at + 2)
        self.version = max(self.version or (0, 0), (major, minor))

    def _scan_check(self, log: bytes, at: int) -> None:
        """The engine noted the dbtime of a page when it checked it: a page in memory must be of that, too."""
        place = at + 6 if log[at] == _SCAN_CHECKS[0] else at + 2
        (number,) = struct.unpack_from("<I", log, place)
        (dbtime,) = struct.unpack_from("<Q", log, place + (4 if log[at] == _SCAN_CHECKS[0] else 5))
        page = self.target.cache.kept(number)
        if page is None or not page.written or number in self.target.pending or self.target.may_be_newer:
            return
        if page.dbtime < dbtime < 1 << 63:
            raise Contradiction(
                f"it is of dbtime {page.dbtime:#x}, and the engine saw it with {dbtime:#x}: a change is missing", number
            )
