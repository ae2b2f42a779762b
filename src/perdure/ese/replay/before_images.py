"""Pages as they were before a split, merge or move, where the log repeats them."""

from __future__ import annotations

from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.compression import Incompressible, decompressed
from perdure.ese.editing import EditablePage
from perdure.ese.replay.errors import Contradiction

__all__ = ["image_of_ends", "image_of_page"]

_DEHYDRATED, _XPRESS = 1, 2
_FREE, _TAGS = slice(28, 30), slice(34, 36)
_TAG = 4


def image_of_page(stored: bytes, flags: int, page_size: int, number: int, file: str) -> EditablePage:
    """The page that a split or merge repeats.

    Args:
        stored: Its bytes as logged.
        flags: 1 if the free space between data and tags was left out, 2 if it was compressed.
        page_size: Of the database, bytes.
        number: The page's number.
        file: The database's name.

    Raises:
        Contradiction: The bytes are no page.
    """
    content = stored
    if flags & _XPRESS:
        try:
            content = decompressed(content)
        except Incompressible as error:
            raise Contradiction(f"its image in the log cannot be decompressed: {error}", number) from error
    if flags & _DEHYDRATED:
        content = _with_free_space(content, page_size, number)
    if len(content) != page_size:
        raise Contradiction(f"its image in the log has {len(content)} bytes, not {page_size}", number)
    return EditablePage.parse(content, number, file)


def image_of_ends(head: bytes, tail: bytes, page_size: int, number: int, file: str) -> EditablePage:
    """The page of which a move repeats the head with the data, and the tags."""
    if len(head) + len(tail) > page_size:
        raise Contradiction("its image in the log is larger than a page", number)
    content = head + bytes(page_size - len(head) - len(tail)) + tail
    return EditablePage.parse(content, number, file)


def _with_free_space(content: bytes, page_size: int, number: int) -> bytes:
    """Put the free space back between data and tags."""
    missing = page_size - len(content)
    tags = _TAG * (int.from_bytes(content[_TAGS], "little") & 0xFFF)
    header = 80 if page_size > LARGE_PAGE else 40
    if missing < 0 or tags == 0 or len(content) < header + tags:
        raise Contradiction("its image in the log is no page without free space", number)
    free = int.from_bytes(content[_FREE], "little") + missing
    if free > page_size:
        raise Contradiction("its image in the log states more free space than a page has", number)
    whole = bytearray(content[:-tags] + bytes(missing) + content[-tags:])
    whole[_FREE] = free.to_bytes(2, "little")
    return bytes(whole)
