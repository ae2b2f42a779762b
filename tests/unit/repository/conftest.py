"""A pool in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.repository import keys
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing need not be expensive in tests."""
    monkeypatch.setattr(keys, "_SCRYPT", (1 << 4, 8, 1))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A new pool; its passphrase is ``correct horse``."""
    return create_pool(LocalStorage(tmp_path / "pool", create=True), b"correct horse", tmp_path / "cache")[0]
