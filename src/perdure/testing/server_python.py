"""A Python that a server's unprivileged user can run perdure with, as its ``restore_command`` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

import perdure
from perdure.testing.postgres_server import owner

__all__ = ["server_python"]


def server_python() -> tuple[str, dict[str, str]] | None:
    """The interpreter and what its environment needs; ``None`` where that user can run none.

    The tests' own may lie in a home directory that others cannot enter; the system's then takes its libraries.
    """
    own = Path(perdure.__file__).parents[1]
    libraries = Path(msgspec.__file__).parents[1]
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for program, path in ((sys.executable, (own,)), (system, (own, libraries))):
        added = {"PYTHONPATH": os.pathsep.join(map(str, path))}
        if _runs(program, added):
            return program, added
    return None


def _runs(program: str, added: dict[str, str]) -> bool:
    command = ["sh", "-c", f"exec {program} -P -m perdure --version"]
    environment = {**os.environ, **added}
    result = subprocess.run(command, capture_output=True, check=False, cwd="/", env=environment, **owner())
    return result.returncode == 0
