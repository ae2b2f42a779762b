r"""The container: the one envelope of every sealed object (packs, log segments, records, sources).

Layout, integers little-endian::

    header    32 bytes   magic "PERDURE\0" | u16 version | u8 kind | u8 key epoch | 4 zero | 16-byte random object id
    blocks    any number, each
      56      block header: magic "BLK1" | u32 stored | u32 raw | u32 number | u8 codec | 7 zero | 32-byte label
      stored  AES-256-GCM ciphertext and 16-byte tag of the (compressed) content
    footer    AES-256-GCM ciphertext and tag of what the kind keeps here
    trailer   28 bytes   u64 footer offset | u32 footer stored | u32 blocks | u32 CRC-32 of these 16 | "PRDTRAIL"

The key of an object is derived from the master key of its key epoch and the whole header, so every object has a key
of its own and a kind cannot be passed off as another. Block nonces are ``u32 0 | u64 number``, the footer's
is ``u32 1 | u64 blocks``; a writer never reuses an object id, so no nonce is ever used twice under a key.
Associated data of a block is header and block header: a label (a chunk id) is bound to its content. The
block headers are plain, so that the index of a pack can be rebuilt when its footer is damaged.
"""

from __future__ import annotations

import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from perdure.model.errors import Damaged
from perdure.repository.keys import KeyRing
from perdure.storage.contract import Buffer, Staged, Storage

__all__ = [
    "BLOCK_HEADER",
    "FORMAT_VERSION",
    "HEADER_SIZE",
    "BlockPlace",
    "ContainerReader",
    "ContainerWriter",
    "Kind",
    "compressed",
    "create_sealed",
    "decompressed",
    "open_block",
    "read_sealed",
]

FORMAT_VERSION = 1
_MAGIC = b"PERDURE\0"
_HEADER = struct.Struct("<8sHBB4x16s")
_EPOCH = 11
"""Offset of the key epoch in the header."""
HEADER_SIZE = _HEADER.size
_BLOCK_MAGIC = b"BLK1"
_BLOCK = struct.Struct("<4sIIIB7x32s")
BLOCK_HEADER = _BLOCK.size
_TRAILER = struct.Struct("<QIII8s")
_TRAILER_MAGIC = b"PRDTRAIL"
_TAG = 16
_MAX_RAW = 64 << 20
"""No block is larger, so a damaged or hostile header cannot ask for more memory than this."""

_RAW, _ZSTD = 0, 1
# Between zstd's levels 2 and 3: nearly the ratio of 3 on database pages (0.638 against 0.635) at 1.3 times its speed.
# Any zstd reader reads it; see docs/reference/benchmarks.md.
_COMPRESSION = zstandard.ZstdCompressionParameters(
    window_log=20,
    chain_log=16,
    hash_log=17,
    search_log=1,
    min_match=5,
    target_length=1,
    strategy=zstandard.STRATEGY_FAST,
    write_content_size=True,
)
_contexts = threading.local()


class Kind(IntEnum):
    """What a container holds."""

    PACK = 1
    LOG = 2
    POINT = 3
    SOURCE = 4
    CONDEMNED = 5
    HOLD = 6
    POLICY = 7
    CHECK = 8
    DRILL = 9


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block lies in its container.

    Args:
        offset: Offset of the block header.
        stored: Bytes of ciphertext and tag.
        raw: Bytes of content.
    """

    offset: int
    stored: int
    raw: int


def _compressor() -> zstandard.ZstdCompressor:
    """One context per thread: making one costs more than compressing a page."""
    context: zstandard.ZstdCompressor | None = getattr(_contexts, "compressor", None)
    if context is None:
        context = _contexts.compressor = zstandard.ZstdCompressor(compression_params=_COMPRESSION)
    return context


def _decompressor() -> zstandard.ZstdDecompressor:
    context: zstandard.ZstdDecompressor | None = getattr(_contexts, "decompressor", None)
    if context is None:
        context = _contexts.decompressor = zstandard.ZstdDecompressor()
    return context


def compressed(data: Buffer) -> bytes:
    """One zstd frame."""
    return _compressor().compress(data)


def decompressed(data: bytes, most: int) -> bytes:
    """Undo zstd.

    Args:
        data: One frame.
        most: Bytes that it may become. A frame that claims more is refused before memory is taken for it: zstandard
            itself believes the frame's header and not its own ``max_output_size``.

    Raises:
        ZstdError: It is no frame, or becomes more than that.
    """
    if zstandard.frame_content_size(data) > most:
        raise zstandard.ZstdError(f"the frame claims to become more than {most} bytes")
    return _decompressor().decompress(data, max_output_size=most)


def _nonce(domain: int, number: int) -> bytes:
    return struct.pack("<IQ", domain, number)


class ContainerWriter:
    """Writes one container to a staged object. Not for several threads at once."""

    def __init__(self, staged: Staged, kind: Kind, keys: KeyRing) -> None:
        self.object_id = secrets.token_bytes(16)
        epoch = keys.newest_epoch
        self._header = _HEADER.pack(_MAGIC, FORMAT_VERSION, kind, epoch, self.object_id)
        self._cipher = keys.object_cipher(self._header, epoch)
        self._staged = staged
        self._blocks = 0
        staged.write(self._header)

    @property
    def size(self) -> int:
        return self._staged.size

    @property
    def staged(self) -> Staged:
        return self._staged

    def add_block(self, content: Buffer, label: bytes) -> BlockPlace:
        """Compress, seal and write one block."""
        packed = _compressor().compress(content)
        codec, body = (_ZSTD, packed) if len(packed) < len(content) else (_RAW, content)
        head = _BLOCK.pack(_BLOCK_MAGIC, len(body) + _TAG, len(content), self._blocks, codec, label)
        sealed = self._cipher.encrypt(_nonce(0, self._blocks), body, self._header + head)
        place = BlockPlace(self._staged.size, len(sealed), len(content))
        self._staged.write(head, sealed)
        self._blocks += 1
        return place

    def finish(self, footer: bytes) -> None:
        """Write footer and trailer; the staged object is then ready to be published."""
        sealed = self._cipher.encrypt(_nonce(1, self._blocks), footer, self._header)
        place = struct.pack("<QII", self._staged.size, len(sealed), self._blocks)
        self._staged.write(sealed, place, struct.pack("<I8s", zlib.crc32(place), _TRAILER_MAGIC))


def _parsed_header(header: bytes, kind: Kind, name: str) -> None:
    """Refuse what is not a container of this kind and version."""
    if len(header) < HEADER_SIZE:
        raise Damaged(f"{name} is cut off: it has no whole header", code="damaged-object")
    magic, version, found, _, _ = _HEADER.unpack(header)
    if magic != _MAGIC or version != FORMAT_VERSION or found != kind or header[_EPOCH + 1 : 16] != bytes(4):
        raise Damaged(f"{name} is damaged: its header is not that of a {kind.name.lower()}", code="damaged-object")


def _cipher(keys: KeyRing, header: bytes, name: str) -> AESGCM:
    """The cipher of the container with this header.

    Raises:
        UnknownKeyEpoch: It was written after a rotation of the keys that this process does not know of.
        Damaged: The pool never had such an epoch.
    """
    if len(header) < HEADER_SIZE:
        raise Damaged(f"{name} is cut off: it has no whole header", code="damaged-object")
    epoch = header[_EPOCH]
    if not keys.has_epoch(epoch):
        raise Damaged(f"{name} is damaged: the pool has no key epoch {epoch}", code="damaged-object")
    return keys.object_cipher(header, epoch)


def open_block(
    keys: KeyRing, header: bytes, data: Buffer, name: str, label: bytes | None = None
) -> tuple[bytes, bytes]:
    """Unseal one block from its header and ciphertext.

    Args:
        keys: The pool's keys.
        header: The container's header.
        data: Block header followed by ciphertext and tag, exactly.
        name: Object name, for messages.
        label: The label that the block must carry.

    Returns:
        Label and content.

    Raises:
        Damaged: These are not the bytes that were written, or not those of this label.
        UnknownKeyEpoch: They were sealed under a newer key than these.
    """
    view = memoryview(data)
    if len(view) < BLOCK_HEADER:
        raise Damaged(f"{name} is cut off inside a block", code="damaged-object")
    magic, stored, raw, number, codec, found = _BLOCK.unpack(view[:BLOCK_HEADER])
    if magic != _BLOCK_MAGIC or stored != len(view) - BLOCK_HEADER or raw > _MAX_RAW or label not in (None, found):
        raise Damaged(f"{name} is damaged: a block header is not what was written", code="damaged-object")
    try:
        body = _cipher(keys, header, name).decrypt(
            _nonce(0, number), view[BLOCK_HEADER:], header + bytes(view[:BLOCK_HEADER])
        )
        content = decompressed(body, raw) if codec == _ZSTD else body
    except (InvalidTag, zstandard.ZstdError) as error:
        raise Damaged(f"{name} is damaged: block {number} does not authenticate", code="damaged-object") from error
    if len(content) != raw:
        raise Damaged(f"{name} is damaged: block {number} has {len(content)} bytes, not {raw}", code="damaged-object")
    return found, content


class ContainerReader:
    """Reads one container through a function that reads ranges of it."""

    def __init__(
        self, read_range: Callable[[int, int], bytes], size: int, kind: Kind, keys: KeyRing, name: str
    ) -> None:
        """Check header and trailer.

        Raises:
            Damaged: They are not what was written.
        """
        self._read = read_range
        self._keys = keys
        self._name = name
        self.size = size
        self.header = read_range(0, HEADER_SIZE)
        _parsed_header(self.header, kind, name)

    def footer(self) -> tuple[bytes, int]:
        """The footer and the number of blocks.

        Raises:
            Damaged: Footer or trailer are not what was written.
            UnknownKeyEpoch: They were sealed under a newer key than these.
        """
        name = self._name
        if self.size < HEADER_SIZE + _TAG + _TRAILER.size:
            raise Damaged(f"{name} is cut off", code="damaged-object")
        trailer = self._read(self.size - _TRAILER.size, _TRAILER.size)
        if len(trailer) != _TRAILER.size:
            raise Damaged(f"{name} is cut off", code="damaged-object")
        offset, stored, blocks, check, magic = _TRAILER.unpack(trailer)
        whole = offset + stored + _TRAILER.size == self.size
        if magic != _TRAILER_MAGIC or check != zlib.crc32(trailer[:16]) or not whole or stored < _TAG:
            raise Damaged(f"{name} is damaged or cut off: it has no valid trailer", code="damaged-object")
        sealed = self._read(offset, stored)
        try:
            return _cipher(self._keys, self.header, name).decrypt(_nonce(1, blocks), sealed, self.header), blocks
        except InvalidTag as error:
            raise Damaged(f"{name} is damaged: its footer does not authenticate", code="damaged-object") from error

    def block(self, place: BlockPlace, label: bytes | None = None) -> bytes:
        """The content of one block.

        Raises:
            Damaged: It is not what was written.
        """
        data = self._read(place.offset, BLOCK_HEADER + place.stored)
        return open_block(self._keys, self.header, data, self._name, label)[1]

    def scan(self) -> Iterator[tuple[bytes, BlockPlace]]:
        """Labels and places of the blocks as their plain headers say; ends at the first thing that is no block."""
        offset = HEADER_SIZE
        number = 0
        while True:
            head = self._read(offset, BLOCK_HEADER)
            if len(head) < BLOCK_HEADER:
                return
            magic, stored, raw, found, _, label = _BLOCK.unpack(head)
            fits = offset + BLOCK_HEADER + stored <= self.size
            if magic != _BLOCK_MAGIC or found != number or raw > _MAX_RAW or not fits:
                return
            yield label, BlockPlace(offset, stored, raw)
            offset += BLOCK_HEADER + stored
            number += 1


def create_sealed(storage: Storage, name: str, kind: Kind, keys: KeyRing, footer: bytes) -> int:
    """Write a small container that is all footer; durable on return. Returns its size."""
    staged = storage.stage()
    ContainerWriter(staged, kind, keys).finish(footer)
    size = staged.size
    storage.commit(staged, name)
    return size


def read_sealed(storage: Storage, name: str, kind: Kind, keys: KeyRing) -> bytes:
    """The footer of a small container.

    Raises:
        Damaged: It is not what was written.
        ObjectMissing: No such object.
    """
    data = storage.read(name)
    reader = ContainerReader(lambda offset, length: data[offset : offset + length], len(data), kind, keys, name)
    return reader.footer()[0]
