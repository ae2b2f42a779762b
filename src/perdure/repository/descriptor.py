"""The pool descriptor: the plain object ``pool`` that says what this is, with a twin ``pool.copy``.

One line of JSON with sorted keys, so that a person can read it: format version, pool id, time of creation, the
chunking parameters that belong to the format, and ``check``: BLAKE3 (hexadecimal) of the same line without it.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass

import msgspec
from blake3 import blake3

from perdure.model.errors import Damaged, NotFound, PerdureError, PoolUnusable
from perdure.repository.container import FORMAT_VERSION
from perdure.storage.contract import ObjectExists, ObjectMissing, Storage

__all__ = ["NAMES", "Descriptor", "check_descriptor", "read_descriptor", "write_descriptor"]

NAMES = ("pool.copy", "pool")
"""The twin is written first: a pool exists when ``pool`` does."""

_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What kind of pool this is.

    Args:
        format: Format version.
        id: Pool id, 32 hexadecimal digits.
        created_ns: When it was made, nanoseconds since 1970 UTC.
        image_chunk: Bytes of an image's chunk.
        fastcdc: Minimum, average and maximum chunk of large files, bytes.
    """

    format: int
    id: str
    created_ns: int
    image_chunk: int = 1 << 20
    fastcdc: tuple[int, int, int] = (256 << 10, 1 << 20, 4 << 20)


def _line(values: dict[str, object]) -> bytes:
    return json.dumps({"perdure": "pool", **values}, sort_keys=True).encode()


def write_descriptor(storage: Storage, descriptor: Descriptor) -> None:
    """Write both copies.

    Raises:
        ObjectExists: There is a pool here already.
    """
    values = asdict(descriptor)
    data = _line({**values, "check": blake3(_line(values)).hexdigest()}) + b"\n"
    for name in NAMES:
        try:
            storage.create(name, data)
        except ObjectExists:
            # An answer that was lost, or somebody who opened the pool already and found only its twin.
            if storage.read(name) != data:
                raise


def check_descriptor(data: bytes, name: str) -> Descriptor:
    """Read one copy.

    Raises:
        Damaged: It is not what was written.
        PoolUnusable: The pool is of a newer format.
    """
    try:
        values = json.loads(data)
        kind, check = values.pop("perdure"), values.pop("check")
        expected = _line({**values, "check": check}) + b"\n"
        whole = kind == "pool" and check == blake3(_line(values)).hexdigest() and data == expected
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise Damaged(f"the pool descriptor {name} is damaged", code="damaged-object")
    version = values.get("format")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise PoolUnusable(
            f"the pool is of format {version}; this perdure reads formats up to {FORMAT_VERSION}",
            code="newer-format",
            hint="use a newer perdure",
        )
    try:
        found = msgspec.convert(values, Descriptor)
    except msgspec.ValidationError as error:
        raise Damaged(f"the pool descriptor {name} has unknown contents", code="damaged-object") from error
    if values.keys() != asdict(found).keys() or not _ID.fullmatch(found.id):
        raise Damaged(f"the pool descriptor {name} has unknown contents", code="damaged-object")
    return found


def read_descriptor(storage: Storage) -> Descriptor:
    """Read the descriptor, from the twin if the first copy is damaged or gone.

    A copy that is gone, or was never written because the machine died while the pool was made, is written again if
    the storage can be written.

    Raises:
        NotFound: There is no pool here.
        Damaged: Both copies are damaged.
        PoolUnusable: The pool is of a newer format.
    """
    failure: Damaged | None = None
    missing = []
    for name in reversed(NAMES):
        try:
            data = storage.read(name)
            found = check_descriptor(data, name)
        except ObjectMissing:
            missing.append(name)
        except Damaged as error:
            failure = error
        else:
            for gone in missing:
                with contextlib.suppress(PerdureError):
                    storage.create(gone, data)
            return found
    if failure is not None:
        raise failure
    raise NotFound(
        f"there is no storage pool at {storage.url}",
        code="pool-missing",
        hint="check the path, or make a pool with: perdure pool create PATH",
    )
