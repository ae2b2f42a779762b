"""Object stores for tests on free loopback ports: SeaweedFS speaks S3, Azurite speaks Azure Blob.

Both would report to their makers by default; here that is off, since nothing leaves loopback. Their data is a
test's, so they are killed rather than asked to stop: SeaweedFS would take half a minute for it.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import hmac
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import perdure

__all__ = ["Azurite", "ObjectServer", "SeaweedFS", "azurite_command", "clean_environment", "weed_command"]

_ACCOUNT = "devstoreaccount1"
# Azurite's public, documented account.
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_START_S = 60.0


def weed_command() -> str | None:
    """The program ``weed``, of the development extra or installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def azurite_command() -> list[str] | None:
    """The words that run ``azurite-blob``: what ``tools/want-npm-packages`` installed, or what is installed."""
    installed = Path(perdure.__file__).parents[2] / ".tools" / "node_modules" / ".bin" / "azurite-blob"
    node = shutil.which("node")
    if node and installed.exists():
        return [node, str(installed.resolve())]
    found = shutil.which("azurite-blob")
    return [found] if found else None


def clean_environment(directory: Path) -> dict[str, str | None]:
    """Variables that keep a test from this machine's own credentials; ``None`` for those that must not be set."""
    known: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("AWS_", "AZURE_"))}
    return known | {
        "AWS_CONFIG_FILE": str(directory / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "no-credentials"),
        "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AZURE_MSI_ENDPOINT": "http://127.0.0.1:1/msi",
    }


class ObjectServer:
    """A server in a process of its own. Use it as a context manager.

    Args:
        directory: Where its data and log go.
    """

    endpoint: str
    environment: Mapping[str, str]
    """Credentials, as variables."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ObjectServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers."""
        deadline = time.monotonic() + _START_S
        command = self._command()
        while not self._answers():
            if self.process is None or self.process.poll() is not None:
                # Not started yet, or another program took one of its ports between looking and starting.
                command = command if self.process is None else self._command()
                self._launch(command)
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{command[0]} did not come up: {self._log_path.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; its data stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Let it answer nothing any more, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def make_bucket(self, name: str, *, lock: bool = False) -> None:
        """Make a bucket or container."""
        raise NotImplementedError

    def url(self, bucket: str, prefix: str = "", **options: str) -> str:
        """The URL of a pool there."""
        raise NotImplementedError

    @property
    def _log_path(self) -> Path:
        return self.directory / "server.log"

    def _launch(self, command: Sequence[str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        libc = ctypes.CDLL(None)
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # A server must not outlive a test run that was killed.
                preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # noqa: PLW1509 (only calls prctl)
            )

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class SeaweedFS(ObjectServer):
    """SeaweedFS with its S3 gateway; enforces conditional writes and object lock."""

    access_key, secret_key = "perdure-test", "perdure-test-secret"
    region = "us-east-1"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environment = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
        }
        self._port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def url(self, bucket: str, prefix: str = "", **options: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"s3://{bucket}{'/' * bool(prefix)}{prefix}?endpoint={self.endpoint}{more}"

    def client(self) -> Any:
        """A boto3 client with full rights."""
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2),
        )

    def make_bucket(self, name: str, *, lock: bool = False) -> None:
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)

    def _command(self) -> list[str]:
        weed = weed_command()
        assert weed is not None, "weed is not installed"
        self.directory.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        if self.process is not None:
            self._port = _free_port()
            self.endpoint = f"http://127.0.0.1:{self._port}"
        master, volume, filer = _free_port(), _free_port(), _free_port()
        options = {
            "dir": self.directory,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            # The default of 8 is used up by the first bucket.
            "volume.max": 200,
            "volume.port": volume,
            "filer": "true",
            "filer.port": filer,
            "s3": "true",
            "s3.port": self._port,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": config,
            "s3.autoCreateBucket": "false",
        }
        return [weed, "server", *(f"-{name}={value}" for name, value in options.items())]

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        try:
            self.client().list_buckets()
        except Exception:  # noqa: BLE001 (whatever is wrong while it starts)
            return False
        return True


class Azurite(ObjectServer):
    """Microsoft's emulator of Azure Blob Storage."""

    account = _ACCOUNT

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environment = {"AZURE_STORAGE_ACCOUNT_KEY": _ACCOUNT_KEY}
        self._port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}/{_ACCOUNT}"

    def url(self, bucket: str, prefix: str = "", **options: str) -> str:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"azure://{bucket}{'/' * bool(prefix)}{prefix}?account={_ACCOUNT}&endpoint={self.endpoint}{more}"

    def make_bucket(self, name: str, *, lock: bool = False) -> None:
        """Make a container, by hand: obstore cannot."""
        assert not lock, "perdure knows no locks on Azure"
        date, version = formatdate(usegmt=True), "2021-12-02"
        to_sign = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
        to_sign += f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
        signature = hmac.new(base64.b64decode(_ACCOUNT_KEY), to_sign.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}",
        }
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"{self.endpoint}/{name}?restype=container", method="PUT", headers=headers
        )
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 (loopback)

    def _command(self) -> list[str]:
        command = azurite_command()
        assert command is not None, "Azurite is not installed"
        if self.process is not None:
            self._port = _free_port()
            self.endpoint = f"http://127.0.0.1:{self._port}/{_ACCOUNT}"
        return [
            *command,
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--location",
            str(self.directory / "data"),
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            str(self._port),
        ]

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()  # noqa: S310 (loopback)
        except urllib.error.HTTPError:
            return True  # It refuses to talk to a stranger: it is up.
        except OSError:
            return False
        return True


def _free_port() -> int:
    """A port that is free, and whose twin 10000 above is too: SeaweedFS uses that for itself."""
    while True:
        port = random.randrange(20000, 32000)  # noqa: S311 (below the ports that the kernel gives away)
        if _is_free(port) and _is_free(port + 10000):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
