"""Packs: containers of chunks, about 64 MiB each, with the index of their chunks in the footer.

Footer, after unsealing: ``u32 count``, then per chunk 48 bytes: 32-byte id, u32 offset of its block header,
u32 stored, u32 raw, u32 zero. A pack is named ``packs/XX/ID`` with its random object id in hexadecimal
and ``XX`` its first byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.repository.container import ContainerReader, ContainerWriter, Kind
from perdure.repository.keys import KeyRing
from perdure.storage.contract import Buffer, Pending, Storage

__all__ = [
    "FOOTER_ROW",
    "PACK_SIZE",
    "PackWriter",
    "footer_rows",
    "pack_id",
    "pack_name",
    "read_pack_index",
    "salvage_pack_index",
    "salvaged_rows",
]

PACK_SIZE = 64 << 20
"""A pack is closed when it has reached this size."""

FOOTER_ROW = np.dtype([("id", "V32"), ("offset", "<u4"), ("stored", "<u4"), ("raw", "<u4"), ("zero", "<u4")])


def pack_name(pack: bytes) -> str:
    """Object name of a pack id (16 bytes)."""
    text = pack.hex()
    return f"packs/{text[:2]}/{text}"


def pack_id(name: str) -> bytes | None:
    """The pack id that an object name stands for, or ``None`` if it is not a pack's name."""
    text = name[-32:]
    if name != f"packs/{text[:2]}/{text}":
        return None
    try:
        pack = bytes.fromhex(text)
    except ValueError:
        return None
    # fromhex() also takes capitals and spaces.
    return pack if pack.hex() == text and len(pack) == 16 else None


class PackWriter:
    """Fills one pack. Not for several threads at once."""

    def __init__(self, storage: Storage, keys: KeyRing) -> None:
        self._storage = storage
        self._writer = ContainerWriter(storage.stage(), Kind.PACK, keys)
        self._rows: list[tuple[bytes, int, int, int, int]] = []

    @property
    def pack(self) -> bytes:
        return self._writer.object_id

    @property
    def full(self) -> bool:
        return self._writer.size >= PACK_SIZE

    def add(self, chunk: bytes, content: Buffer) -> int:
        """Append a chunk; returns the bytes that it takes."""
        place = self._writer.add_block(content, chunk)
        self._rows.append((chunk, place.offset, place.stored, place.raw, 0))
        return place.stored

    def finish(self) -> tuple[Pending, NDArray[np.void], int]:
        """Close the pack; returns its publication, its index rows and its size."""
        rows = np.array(self._rows, dtype=FOOTER_ROW)
        self._writer.finish(len(rows).to_bytes(4, "little") + rows.tobytes())
        size = self._writer.size
        return self._storage.publish(self._writer.staged, pack_name(self.pack)), rows, size

    def discard(self) -> None:
        self._writer.staged.discard()


def _reader(storage: Storage, keys: KeyRing, pack: bytes, size: int) -> ContainerReader:
    name = pack_name(pack)
    return ContainerReader(lambda offset, length: storage.read_range(name, offset, length), size, Kind.PACK, keys, name)


def read_pack_index(storage: Storage, keys: KeyRing, pack: bytes, size: int) -> NDArray[np.void]:
    """The index rows of a pack, from its footer.

    Raises:
        Damaged: The footer is not what was written.
    """
    return footer_rows(_reader(storage, keys, pack, size), pack)


def footer_rows(reader: ContainerReader, pack: bytes) -> NDArray[np.void]:
    """The index rows of an open pack, from its footer.

    Raises:
        Damaged: The footer is not what was written.
    """
    footer, blocks = reader.footer()
    if len(footer) != 4 + blocks * FOOTER_ROW.itemsize or int.from_bytes(footer[:4], "little") != blocks:
        raise Damaged(f"{pack_name(pack)} is damaged: its index has a wrong length", code="damaged-object")
    return np.frombuffer(footer, dtype=FOOTER_ROW, offset=4)


def salvage_pack_index(storage: Storage, keys: KeyRing, pack: bytes, size: int) -> NDArray[np.void]:
    """The index rows as the plain block headers tell them, for a pack whose footer is damaged.

    Whether each block is whole is found when it is read: its label is bound to its content.
    """
    return salvaged_rows(_reader(storage, keys, pack, size))


def salvaged_rows(reader: ContainerReader) -> NDArray[np.void]:
    """The index rows of an open pack as its block headers tell them."""
    return np.array(
        [(label, place.offset, place.stored, place.raw, 0) for label, place in reader.scan()], dtype=FOOTER_ROW
    )
