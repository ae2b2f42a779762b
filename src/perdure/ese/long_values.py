"""Long values: values too large for a record, kept in parts in a tree of their own."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.ese.columns import Undecoded
from perdure.ese.compression import Incompressible, decompressed
from perdure.ese.errors import EseDamaged
from perdure.ese.pages import Node
from perdure.ese.trees import Tree

__all__ = ["LongValueRoot", "LongValues"]

_ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class LongValueRoot:
    """What the first node of a long value says.

    Args:
        references: Records that share it.
        size: Bytes of the whole value.
        encrypted: Whether its parts are encrypted.
    """

    references: int
    size: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class LongValues:
    """The long values of a table.

    Args:
        tree: Their tree.
    """

    tree: Tree

    def read(self, identifier: bytes) -> bytes | Undecoded:
        """A whole value.

        Args:
            identifier: As stored in the record: 4 or 8 bytes, little-endian.

        Raises:
            EseDamaged: It is not there, a part is missing, or a part does not have its size.
        """
        key = identifier[::-1]
        root: LongValueRoot | None = None
        parts: list[tuple[int, bytes]] = []
        for node in self.tree.nodes(key):
            if not node.key.startswith(key):
                break
            if root is None:
                root = self._root(node, key)
            elif len(node.key) == len(key) + 4:
                parts.append((int.from_bytes(node.key[-4:], "big"), node.data))
            else:
                break
        if root is None:
            raise self._damaged(key, "is not there, and a record refers to it")
        return self._joined(key, root, parts)

    def _root(self, node: Node, key: bytes) -> LongValueRoot:
        if node.key != key or len(node.data) not in (8, 9):
            raise self._damaged(key, "has no root")
        flags = node.data[8] if len(node.data) > 8 else 0
        count, size = int.from_bytes(node.data[:4], "little"), int.from_bytes(node.data[4:8], "little")
        return LongValueRoot(count, size, bool(flags & _ENCRYPTED))

    def _joined(self, key: bytes, root: LongValueRoot, parts: list[tuple[int, bytes]]) -> bytes | Undecoded:
        if root.encrypted:
            return Undecoded("it is encrypted", b"".join(part for _, part in parts))
        whole = bytearray()
        bounds = [*(offset for offset, _ in parts), root.size][1:]
        for (offset, part), end in zip(parts, bounds, strict=True):
            if offset != len(whole) or end < offset:
                raise self._damaged(key, f"has no part for offset {len(whole)}")
            try:
                # A part is compressed exactly if it is not as long as it should be.
                content = part if len(part) == end - offset else decompressed(part)
            except Incompressible as error:
                return Undecoded(str(error), b"".join(part for _, part in parts))
            if len(content) != end - offset:
                raise self._damaged(key, f"has a part at offset {offset} of {len(content)} bytes, not {end - offset}")
            whole += content
        if len(whole) != root.size:
            raise self._damaged(key, f"has {len(whole)} of {root.size} bytes")
        return bytes(whole)

    def _damaged(self, key: bytes, what: str) -> EseDamaged:
        return EseDamaged(
            f"{self.tree.database.file}: long value {key.hex()} in the tree with root page {self.tree.root} {what}",
            code="ese-long-value-damaged",
            hint="the other values of the record can still be read; recover the database from a recovery point",
        )
