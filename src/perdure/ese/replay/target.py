"""The database that is being replayed: which of its pages a record still has to change, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from perdure.ese.editing import EditablePage
from perdure.ese.errors import EseDamaged
from perdure.ese.pages import PageFlag
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.heads import PAGE_IS_NEW
from perdure.ese.replay.page_cache import PageCache

__all__ = ["Counters", "ReplayTarget", "page_flags"]

_SHRUNK, _REVERTED = 0xFFFFFFFFFFFFFFFD, 0xFFFFFFFFFFFFFFFC
"""The dbtimes of pages that the engine has thrown away: they count as never written."""

_PER_WRITE = int(PageFlag.FLUSH_TYPE_LOW | PageFlag.FLUSH_TYPE_HIGH | PageFlag.PREINITIALISED)
_EVERY_PAGE = int(PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM)


def page_flags(flags: int) -> int:
    """The flags of a page as a record states them, without what belongs to a single write."""
    return flags & ~_PER_WRITE | _EVERY_PAGE


@dataclass(slots=True)
class Counters:
    """What a replay did.

    Args:
        changed: Changes of pages that were made.
        skipped: Changes that a page had already.
        undone: Changes of unfinished transactions that were taken back.
    """

    changed: int = 0
    skipped: int = 0
    undone: int = 0


@dataclass(slots=True)
class ReplayTarget:
    """One database under replay.

    Args:
        cache: Its pages.
        may_be_newer: Whether the records at hand lie in the range in which the image may already hold them; behind it
            every change must be needed.
        dbtime: The highest that is known.
        last_objid: The highest object number that is known.
        where: Says which record is at work, for messages.
        pending: Pages that lack changes from before the image, and why. The engine may have thrown them away later on;
            if it did not, the image is wrong.
        counters: What was done.
    """

    cache: PageCache
    may_be_newer: bool
    dbtime: int
    last_objid: int
    where: Callable[[], str]
    pending: dict[int, str] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    @property
    def file(self) -> str:
        """The database's name, for messages."""
        return self.cache.file

    def reached(self, dbtime: int, objid: int = 0) -> None:
        """A record is of a dbtime, and about a tree."""
        self.dbtime = max(self.dbtime, dbtime)
        self.last_objid = max(self.last_objid, objid)

    def existing(self, number: int, before: int, after: int) -> EditablePage | None:
        """A page that a record changes, or ``None`` if the page holds the change already.

        Raises:
            Contradiction: The page is neither as it was before the change nor newer.
        """
        if self.pending and number in self.pending:
            return None
        page = self.cache.page(number)
        if page.dbtime == before and before < after:
            self.counters.changed += 1
            return page
        return self._unusual(page, before, after)

    def fresh(self, number: int, after: int, objid: int, flags: int) -> EditablePage | None:
        """A page that a record makes, blank, or ``None`` if there is a newer one in its place."""
        if number == 0:
            raise Contradiction("a new page has the number 0")
        stamp = self._stamp(number)
        if stamp >= after:
            if not self.may_be_newer:
                raise Contradiction(
                    f"it is of dbtime {stamp:#x}, and the record makes it anew at {after:#x}: "
                    "the record was replayed before, or image and logs are not of one database",
                    number,
                )
            self.counters.skipped += 1
            return None
        self.pending.pop(number, None)
        page = EditablePage(self.cache.page_size, number, objid, page_flags(flags), self.cache.file)
        page.dbtime = after
        self.cache.put(page)
        self.counters.changed += 1
        return page

    def changed(self, page: EditablePage, dbtime: int) -> None:
        """Note that a page was brought to a dbtime."""
        page.dbtime = dbtime
        page.uncommitted_free = 0
        free = page.free
        if free < 0:
            raise Contradiction(f"it would hold {-free} bytes more than fit", page.number)
        self.cache.change(page.number)

    def forget(self, number: int) -> None:
        """A page was given up: that it lacks changes does not matter any more."""
        self.pending.pop(number, None)

    def _unusual(self, page: EditablePage, before: int, after: int) -> EditablePage | None:
        number, stamp = page.number, page.dbtime
        if not page.written or stamp in (_SHRUNK, _REVERTED):
            self.lacks(number, "it was never written, and the record changes it")
            return None
        if stamp >= after:
            if not self.may_be_newer:
                raise Contradiction(
                    f"it is of dbtime {stamp:#x} already, and the record brings it to {after:#x}: "
                    "the record was replayed before, or image and logs are not of one database",
                    number,
                )
            self.counters.skipped += 1
            return None
        if before == PAGE_IS_NEW:
            self.counters.changed += 1
            return page
        if stamp < before:
            what = f"it is of dbtime {stamp:#x}, and the record expects {before:#x}: a change before it is missing"
            self.lacks(number, what)
            return None
        raise Contradiction(
            f"it is of dbtime {stamp:#x}, and the record expects {before:#x}: it holds a change that is not in the log",
            number,
        )

    def lacks(self, number: int, what: str) -> None:
        """A page lacks a change of before the image: that is fine only if a later record gives the page up.

        Raises:
            Contradiction: The records at hand lie behind the image.
        """
        if not self.may_be_newer:
            raise Contradiction(what, number)
        self.pending[number] = f"{self.where()}: page {number}: {what}"
        self.counters.skipped += 1

    def _stamp(self, number: int) -> int:
        """The dbtime of a page that is to be made anew; a page that cannot be read is as good as none."""
        try:
            page = self.cache.page(number)
        except EseDamaged:
            return 0
        return 0 if page.dbtime in (_SHRUNK, _REVERTED) else page.dbtime
