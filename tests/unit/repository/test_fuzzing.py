"""Every parser of pool bytes meets damage and malice with a typed error, in bounded memory and time."""

from __future__ import annotations

import json
import struct

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.model.errors import PerdureError
from perdure.testing.fuzzing import MEMORY, TARGETS, Target, examine

LARGE = st.sampled_from(
    [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63]
)


@st.composite
def edits(draw: st.DrawFn, examples: list[bytes]) -> bytes:
    """Real bytes with a few changes of the kind that damage and malice make."""
    data = bytearray(draw(st.sampled_from(examples))) if examples else bytearray()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 5)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                patch = draw(st.binary(max_size=12))
                data[at : at + len(patch)] = patch
            case 2:
                size = draw(st.sampled_from([1, 2, 4, 8]))
                number = (draw(LARGE) % (1 << 8 * size)).to_bytes(size, draw(st.sampled_from(["little", "big"])))
                data[at : at + size] = number
            case 3:
                del data[at : at + draw(st.integers(1, 40))]
            case 4:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes_give_a_typed_error_or_a_value(target: Target, data: st.DataObject) -> None:
    """Real bytes with changes never crash a parser, nor blow its memory up."""
    examine(target, data.draw(edits(target.examples())))


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_give_a_typed_error_or_a_value(target: Target, data: bytes) -> None:
    """So do bytes that are nothing at all."""
    examine(target, data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_real_bytes_are_parsed(target: Target) -> None:
    """What a pool really holds reaches the parsers and passes, so the targets do what they are for."""
    refused = []
    for example in target.examples():
        try:
            target.parse(example)
        except PerdureError as error:
            refused.append(error)

    assert len(refused) < len(target.examples()), refused


def bomb(claimed: int) -> bytes:
    """A zstd frame of a few bytes that claims to become very many."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", claimed) + b"\x01\x00\x00"


def honest_bomb() -> bytes:
    """A zstd frame that really becomes 4 GiB, without saying so."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    zeros = bytes(1 << 24)
    return b"".join(compressor.compress(zeros) for _ in range(256)) + compressor.flush()


MALICE = {
    "a block that claims to become a terabyte": ("block", struct.pack("<IB", 100, 1) + bomb(1 << 40)),
    "a block that claims as much as its header may": ("block", struct.pack("<IB", 64 << 20, 1) + bomb(1 << 40)),
    "an index of log that claims to become a terabyte": ("log-columns", bomb(1 << 40)),
    "an index of log that becomes four gibibytes": ("log-columns", honest_bomb()),
    "a block that becomes four gibibytes": ("block", struct.pack("<IB", 100, 1) + honest_bomb()),
    "a map of 2^32 extents": ("map", struct.pack("<4sHHQII", b"XMAP", 1, 0, 1 << 60, 0xFFFFFFFF, 0xFFFFFFFF)),
    "a listing of 2^32 entries": ("listing", b"\xdd\xff\xff\xff\xff"),
    "nested lists": ("listing", b"\x91" * 100_000),
    "pieces of 2^32": ("pieces", b"\xdd\xff\xff\xff\xff"),
    "a record with 2^32 keys": ("record", b"\xdf\xff\xff\xff\xff"),
    "a source whose name is not UTF-8": ("source", b"\x82\xa2id\xa1\xff\xa4name\xa1x"),
    "a key slot that costs gigabytes": (
        "key-slot-checked",
        msgspec.msgpack.encode(
            {"kind": "passphrase", "salt": b"s", "cost": (1 << 20, 16, 1), "sealed": bytes(60), "check": b""}
        ),
    ),
    "a key slot that costs nothing sensible": (
        "key-slot-checked",
        msgspec.msgpack.encode({"kind": "passphrase", "salt": b"", "cost": (0, -1), "sealed": bytes(60), "check": b""}),
    ),
    "an index segment of 2^60 rows": ("index-segment", struct.pack("<8sQQQ", b"PRDINDEX", 1 << 60, 1 << 60, 0)),
    "a descriptor of nested lists": ("descriptor", b"[" * 100_000),
    "a descriptor of a format that is no number": (
        "descriptor-checked",
        json.dumps({"perdure": "pool", "format": "1", "id": "0" * 32, "created_ns": 0}).encode(),
    ),
    "a descriptor whose id is none": (
        "descriptor-checked",
        json.dumps(
            {"perdure": "pool", "format": 1, "id": "x", "created_ns": 0, "image_chunk": 1, "fastcdc": [1]}
        ).encode(),
    ),
}


@pytest.mark.parametrize(("name", "data"), MALICE.values(), ids=list(MALICE))
def test_malice_is_met_with_a_typed_error(name: str, data: bytes) -> None:
    """Small inputs that ask for much memory or time, or that lie about what they are, are refused."""
    examine(TARGETS[name], data)


def test_the_guard_notices_memory_and_other_errors() -> None:
    """A parser that takes too much memory, or fails in any way but a typed one, is found out."""
    with pytest.raises(MemoryError):
        examine(Target("hungry", lambda _: [], lambda _: bytearray(2 * MEMORY)), b"")
    with pytest.raises(ZeroDivisionError):
        examine(Target("careless", lambda _: [], lambda data: 1 // len(data)), b"")
