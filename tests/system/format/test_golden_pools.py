"""Pools that were made by the version that fixed their format are read by this one, and by the specification alone."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from perdure.model.points import ImageFile
from perdure.repository.keys import Passphrase, RecoveryKey
from perdure.repository.opening import open_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.storage.local import LocalStorage
from perdure.testing.golden import PASSPHRASE, contents, image_content, make_golden_pools

GOLDEN = Path(__file__).parents[2] / "golden"
POOLS = sorted(path.parent for path in GOLDEN.glob("*/*/pool"))


def expected_of(golden: Path) -> dict[str, Any]:
    """What a golden pool must give back."""
    return json.loads((golden.parent / "expected.json").read_text())["pools"][golden.name]


@pytest.fixture(params=POOLS, ids=[f"{path.parent.name}/{path.name}" for path in POOLS])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a golden pool, with ``expected.json`` beside it, so that nothing writes to the original."""
    shutil.copy(request.param.parent / "expected.json", tmp_path)
    return shutil.copytree(request.param, tmp_path / request.param.name)


def opened(golden: Path, cache: str = "cache") -> Pool:
    """The pool, by its passphrase."""
    return open_pool(LocalStorage(golden), Passphrase(PASSPHRASE), golden.parent / cache)


def test_there_are_golden_pools_and_they_are_small() -> None:
    """The format that is written today has golden pools, which do not weigh a checkout down."""
    assert (GOLDEN / "format-1" / "expected.json").exists()
    assert len(POOLS) >= 2
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 300_000


def test_every_point_and_segment_reads_as_when_it_was_written(golden: Path, tmp_path: Path) -> None:
    """All that the pool held then is restored, and is the same to the last byte."""
    expected = expected_of(golden)
    pool = opened(golden)

    found = contents(pool, tmp_path / "restored")

    assert found == {key: expected[key] for key in found}
    assert found["points"]
    assert pool.damage == []
    assert verify_pool(pool, data=True).sound
    again = open_pool(LocalStorage(golden), RecoveryKey.parse(expected["recovery_key"]), tmp_path / "other")
    assert again.sources() == pool.sources()


def test_a_pool_with_every_footer_damaged_gives_everything_back(golden: Path, tmp_path: Path) -> None:
    """The block headers alone are enough to find all chunks."""
    for pack in (golden / "packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[-40] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)
    pool = opened(golden)

    found = contents(pool, tmp_path / "restored")

    assert found == {key: expected_of(golden)[key] for key in found}
    assert pool.damage


def test_what_is_written_today_is_what_the_golden_pools_show(tmp_path: Path) -> None:
    """Made anew the golden pools have the same content, so the script that makes them is alive and repeatable."""
    make_golden_pools(tmp_path / "new")

    new = json.loads((tmp_path / "new" / "expected.json").read_text())["pools"]

    for name, found in new.items():
        old = expected_of(GOLDEN / "format-1" / name)
        assert {key: found[key] for key in found if key != "recovery_key"} == {
            key: old[key] for key in old if key != "recovery_key"
        }


# --- a reader made from the specification page alone ---------------------------------------------


@dataclass(frozen=True)
class BySpecification:
    """Reads a pool with nothing but what docs/reference/format.md says."""

    root: Path
    masters: list[bytes]

    @classmethod
    def open(cls, root: Path) -> BySpecification:
        line = (root / "pool").read_bytes()
        values = json.loads(line)
        check = values.pop("check")
        assert line.endswith(b"\n")
        assert check == blake3(json.dumps(values, sort_keys=True).encode()).hexdigest()
        assert (values["perdure"], values["format"], values["image_chunk"]) == ("pool", 1, 1 << 20)
        assert values["fastcdc"] == [262144, 1048576, 4194304]
        assert (root / "pool.copy").read_bytes() == line
        (path,) = [path for path in (root / "keys").glob("passphrase-*") if path.suffix != ".copy"]
        slot = msgspec.msgpack.decode(path.read_bytes())
        n, r, p = slot["cost"]
        key = Scrypt(salt=slot["salt"], length=32, n=n, r=r, p=p).derive(PASSPHRASE)
        associated = bytes.fromhex(values["id"]) + slot["kind"].encode()
        plain = AESGCM(key).decrypt(slot["sealed"][:12], slot["sealed"][12:], associated)
        check_of = msgspec.msgpack.encode([slot["kind"], slot["salt"], slot["cost"], slot["sealed"]])
        assert slot["check"] == blake3(check_of).digest(8)
        return cls(root, [plain[at : at + 32] for at in range(0, len(plain), 32)])

    def chunk_id(self, content: bytes) -> bytes:
        key = blake3(self.masters[0], derive_key_context="perdure 2026 v1 chunk ids").digest()
        return blake3(content, key=key).digest()

    def container(self, path: Path, kind: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The unsealed footer, and label and content of every block."""
        data = path.read_bytes()
        header = data[:32]
        magic, version, found, epoch, zero, _ = struct.unpack("<8sHBB4s16s", header)
        assert (magic, version, found, zero) == (b"PERDURE\0", 1, kind, bytes(4))
        master = self.masters[epoch]
        root = blake3(master, derive_key_context="perdure 2026 v1 object keys").digest()
        cipher = AESGCM(blake3(header, key=root).digest())
        footer_at, stored, blocks, crc, end = struct.unpack("<QIII8s", data[-28:])
        assert end == b"PRDTRAIL"
        assert crc == zlib.crc32(data[-28:-12])
        assert footer_at + stored + 28 == len(data)
        footer = cipher.decrypt(struct.pack("<IQ", 1, blocks), data[footer_at : footer_at + stored], header)
        return footer, list(self.blocks(data, header, cipher, footer_at))

    @staticmethod
    def blocks(data: bytes, header: bytes, cipher: AESGCM, end: int) -> Iterator[tuple[bytes, bytes]]:
        at, number = 32, 0
        while at < end:
            head = data[at : at + 56]
            magic, stored, raw, found, codec, zero, label = struct.unpack("<4sIIIB7s32s", head)
            assert (magic, found, zero) == (b"BLK1", number, bytes(7))
            sealed = data[at + 56 : at + 56 + stored]
            content = cipher.decrypt(struct.pack("<IQ", 0, number), sealed, header + head)
            if codec == 1:
                content = zstandard.decompress(content)
            assert len(content) == raw
            yield label, content
            at, number = at + 56 + stored, number + 1

    def files(self, top: str) -> list[Path]:
        return [path for path in sorted((self.root / top).rglob("*")) if path.is_file()]


def test_the_bytes_are_as_the_specification_says(golden: Path) -> None:
    """A reader that knows nothing of perdure but its format page unseals every object of the pool."""
    reader = BySpecification.open(golden)

    for path in reader.files("packs"):
        footer, blocks = reader.container(path, 1)
        assert path.name == path.read_bytes()[16:32].hex()
        assert path.parent.name == path.name[:2]
        assert len(blocks) == int.from_bytes(footer[:4], "little")
        for number, (label, content) in enumerate(blocks):
            chunk, offset, _, raw, zero = struct.unpack_from("<32sIIII", footer, 4 + 48 * number)
            assert chunk == label == reader.chunk_id(content)
            assert (raw, zero) == (len(content), 0)
            assert path.read_bytes()[offset : offset + 4] == b"BLK1"
    for path in reader.files("points"):
        record = msgspec.msgpack.decode(reader.container(path, 3)[0])
        assert path == golden / "points" / record["source"] / f"{record['number']:08d}"
        assert record["kind"] in ("express full", "file")
    for path in reader.files("sources"):
        source = msgspec.msgpack.decode(reader.container(path, 4)[0])
        assert path.name.removesuffix(".copy") == source["id"]
    for path in reader.files("logs"):
        footer, blocks = reader.container(path, 2)
        found = msgspec.msgpack.decode(footer)
        after = found["after"][1] if found["after"][0] == found["last"][0] else 0
        assert path.name == f"{found['last'][0]:08x}-{after:016x}-{found['last'][1]:016x}"
        assert len(zstandard.decompress(found["marks"])) % 16 == 0
        assert [raw for _, _, raw in found["blocks"]] == [len(content) for _, content in blocks]


def test_maps_are_as_the_specification_says(golden: Path) -> None:
    """Every extent map's columns give back the image, by the format page alone."""
    reader = BySpecification.open(golden)
    chunks = dict(pair for path in reader.files("packs") for pair in reader.container(path, 1)[1])
    pool = opened(golden)
    records = [msgspec.msgpack.decode(reader.container(path, 3)[0]) for path in reader.files("points")]

    for record in records:
        for file in record["files"]:
            content = bytearray()
            for ref in (file["base"], *file["deltas"]):
                stream = b"".join(chunks[chunk] for chunk in ref["chunks"])
                assert len(stream) == ref["size"]
                content = overlaid(content, stream, chunks)
            assert bytes(content) == image_content(pool, msgspec.convert(file, ImageFile))


def overlaid(below: bytearray, data: bytes, chunks: dict[bytes, bytes]) -> bytearray:
    """A file after one more map."""
    magic, version, zero, size, n, m = struct.unpack_from("<4sHHQII", data)
    assert (magic, version, zero, len(data)) == (b"XMAP", 1, 0, 24 + 24 * n + 32 * m)
    gaps, lengths = struct.unpack_from(f"<{n}Q", data, 24), struct.unpack_from(f"<{n}Q", data, 24 + 8 * n)
    steps, starts = struct.unpack_from(f"<{n}I", data, 24 + 16 * n), struct.unpack_from(f"<{n}I", data, 24 + 20 * n)
    content = below[:size].ljust(size, b"\0")
    at = number = 0
    for gap, length, step, start in zip(gaps, lengths, steps, starts, strict=True):
        at, number = at + gap, (number + step) % (1 << 32)
        chunk = data[24 + 24 * n + 32 * number :][:32] if number != 0xFFFFFFFF else b""
        content[at : at + length] = chunks[chunk][start : start + length] if chunk else bytes(length)
        at += length
    return content
