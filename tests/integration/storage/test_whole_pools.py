"""Whole pools on object stores, as a person uses them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perdure.testing.command_line import CommandLine, query, write
from perdure.testing.object_servers import Azurite, ObjectServer, SeaweedFS


@pytest.fixture
def perdure(tmp_path: Path) -> CommandLine:
    """The command line with a home and a passphrase of its own."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("kept elsewhere\n")
    passphrase.chmod(0o600)
    return CommandLine(tmp_path / "home", passphrase)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of several packs' worth of chunks and some small ones."""
    folder = tmp_path / "share"
    (folder / "sub").mkdir(parents=True)
    (folder / "large").write_bytes(b"".join(bytes([n % 251, n % 241]) * 32768 for n in range(300)))
    (folder / "sub" / "small").write_text("small")
    return folder


def journey(perdure: CommandLine, server: ObjectServer, create: tuple[str, ...], url: str, folder: Path) -> None:
    """Make a pool, protect, verify, lose everything on this machine, open the pool again, and recover."""
    root = folder.parent
    database = root / "app.db"
    write(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(v)", "INSERT INTO t VALUES ('first')")

    made = perdure.document("pool", "create", *create)
    assert made["pool"]["url"] == url
    perdure.document("protect", f"files:{folder}", "--pool", url, "--as", "share")
    perdure.document("protect", f"sqlite:{database}", "--pool", url, "--as", "app")
    write(database, "INSERT INTO t VALUES ('second')")
    perdure.document("sync", "app")
    assert perdure.document("verify", url, "--data")["sound"]

    shutil.rmtree(perdure.home)
    opened = perdure.document("pool", "open", *create)
    assert [source["name"] for source in opened["sources"]] == ["app", "share"]
    perdure.document("recover", "share", "--to", "latest", "--target", root / "share-again")
    perdure.document("recover", "app", "--to", "latest", "--target", root / "app-again.db")

    assert (root / "share-again" / "large").read_bytes() == (folder / "large").read_bytes()
    assert (root / "share-again" / "sub" / "small").read_text() == "small"
    assert query(root / "app-again.db", "SELECT v FROM t") == [["first"], ["second"]]


@pytest.mark.slow
def test_a_pool_on_s3(perdure: CommandLine, seaweedfs: SeaweedFS, prefix: str, folder: Path) -> None:
    """A pool made with --endpoint is found again by its URL alone, and gives everything back on a new machine."""
    where = (f"s3://pools/{prefix}", "--endpoint", seaweedfs.endpoint)
    journey(perdure, seaweedfs, where, f"s3://pools/{prefix}?endpoint={seaweedfs.endpoint}", folder)


@pytest.mark.slow
def test_a_pool_on_azure(perdure: CommandLine, azurite: Azurite, prefix: str, folder: Path) -> None:
    """A pool on Azure is found again by its URL alone, and gives everything back on a new machine."""
    where = (f"az://pools/{prefix}?account={azurite.account}", "--endpoint", azurite.endpoint)
    url = f"azure://pools/{prefix}?account={azurite.account}&endpoint={azurite.endpoint}"
    journey(perdure, azurite, where, url, folder)


def test_a_second_copy_on_s3(perdure: CommandLine, seaweedfs: SeaweedFS, prefix: str, folder: Path) -> None:
    """A pool on a disk is copied to a bucket, in two runs, and after its loss everything comes back from there."""
    root, database, pool = folder.parent, folder.parent / "app.db", folder.parent / "pool"
    url = f"s3://pools/{prefix}?endpoint={seaweedfs.endpoint}"
    write(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(v)", "INSERT INTO t VALUES ('first')")
    perdure.document("pool", "create", pool)
    perdure.document("pool", "create", url)
    perdure.document("protect", f"files:{folder}", "--pool", pool, "--as", "share")
    perdure.document("protect", f"sqlite:{database}", "--pool", pool, "--as", "app")
    assert perdure.document("copy", pool, url)["complete"]
    write(database, "INSERT INTO t VALUES ('second')")
    perdure.document("sync", "app")
    assert perdure.document("copy", pool, url)["sources"][0]["log_segments"] == 1
    shutil.rmtree(pool)

    perdure.document("recover", "share", "--to", "latest", "--target", root / "share-again", "--pool", url)
    perdure.document("recover", "app", "--to", "latest", "--target", root / "app-again.db", "--pool", url)

    assert (root / "share-again" / "large").read_bytes() == (folder / "large").read_bytes()
    assert query(root / "app-again.db", "SELECT v FROM t") == [["first"], ["second"]]
    assert perdure.document("verify", url, "--data")["sound"]


def test_a_pool_is_only_made_below_an_empty_prefix(perdure: CommandLine, seaweedfs: SeaweedFS, prefix: str) -> None:
    """Where objects lie already no pool is made, and nothing is changed."""
    url = seaweedfs.url("pools", prefix)
    seaweedfs.client().put_object(Bucket="pools", Key=f"{prefix}/else", Body=b"mine")

    assert perdure.refusal("pool", "create", url, status=4).code == "pool-exists"
    assert perdure.refusal("pool", "info", url, status=3).code == "pool-missing"
    listed = seaweedfs.client().list_objects_v2(Bucket="pools", Prefix=prefix)["Contents"]
    assert [each["Key"] for each in listed] == [f"{prefix}/else"]
