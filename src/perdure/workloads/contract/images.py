"""Images of a source, and what is known of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from perdure.model.logs import StoredSegment
from perdure.model.positions import Position

__all__ = ["BaseImage", "Image", "ImageReader", "MovingImage"]


# --- image workloads ---------------------------------------------------------------------------------


class ImageReader(Protocol):
    """One file of a frozen image. ``read`` may be called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def page_size(self) -> int: ...

    @property
    def changed(self) -> NDArray[np.int64] | None:
        """Sorted 0-based numbers of the pages that may differ from the base image; ``None``: unknown."""
        ...

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Bytes ``[offset, offset + length)`` of the image; shorter only at its end."""
        ...


class Image(Protocol):
    """A consistent image, frozen while the context manager that yields it is open.

    It may also have ``notes``: lines for people that its recovery point keeps.
    """

    @property
    def position(self) -> Position:
        """Where the log that continues this image starts."""
        ...

    @property
    def chain(self) -> bytes: ...

    @property
    def time_ns(self) -> int: ...

    @property
    def files(self) -> Sequence[ImageReader]: ...


def _no_content(name: str) -> bytes:
    raise KeyError(name)


def _no_heads(_: str, pages: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return pages[:0], np.empty((0, length), np.uint8)


@dataclass(frozen=True, slots=True)
class BaseImage:
    """The image that the next express full will be a delta of.

    Args:
        position: Its position.
        sizes: Size of every file by name, bytes.
        page_sizes: Page size of every file by name.
        log: Yields the stored segments after ``position``, so that a workload whose session has not seen
            them itself can learn from their ``index`` which pages changed.
        content: Reads one of its files whole; for small ones.
        heads: Reads the first bytes of pages of a file: takes its name, page numbers and how many bytes, and gives the
            numbers of those pages that can be had cheaply, and their bytes, ``uint8[n, length]``.
        tracked: The log leads from it to now. If not, only its layout is of use, and everything has to be compared.
        whole: Every page will be read, not only what changed.
    """

    position: Position
    sizes: Mapping[str, int]
    page_sizes: Mapping[str, int]
    log: Callable[[], Iterable[StoredSegment]]
    content: Callable[[str], bytes] = _no_content
    heads: Callable[[str, NDArray[np.int64], int], tuple[NDArray[np.int64], NDArray[np.uint8]]] = _no_heads
    tracked: bool = True
    whole: bool = False


@runtime_checkable
class MovingImage(Protocol):
    """An image whose source changes while it is read, and whose position is known only when all of it was read."""

    def unexplained(self, name: str, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of pages of a file that differ from the image before: those that no log says to have changed."""
        ...
