"""Where the passphrase of a pool comes from: a file, the environment's file, or a person at a terminal."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli.output import remark
from perdure.model.errors import BadInput

if TYPE_CHECKING:
    from perdure.repository.keys import Secret

__all__ = ["VARIABLE", "as_secret", "new_passphrase", "read_passphrase"]

VARIABLE = "PERDURE_PASSPHRASE_FILE"

_LIMIT = 4096


def read_passphrase(file: Path | None, *, what: str = "the storage pool") -> bytes:
    """The passphrase of an existing pool.

    Args:
        file: The file that the person named; else the environment's, else a prompt.
        what: What it opens, for the prompt.

    Raises:
        BadInput: There is no passphrase to be had, or it is empty.
    """
    file = file or _file_of_the_environment()
    if file is not None:
        return _first_line(file)
    if not sys.stdin.isatty():
        raise BadInput(
            f"no passphrase for {what}: there is no terminal to ask at",
            code="passphrase-needed",
            hint=f"name a file that holds it with --passphrase-file, or in {VARIABLE}",
        )
    return _not_empty(getpass.getpass(f"Passphrase of {what}: ").encode(), "the passphrase")


def new_passphrase(file: Path | None) -> bytes:
    """The passphrase of a pool that is about to be made; a person types it twice.

    Raises:
        BadInput: As :func:`read_passphrase`, or the two do not agree.
    """
    passphrase = read_passphrase(file, what="the new storage pool")
    if file is None and _file_of_the_environment() is None:
        again = getpass.getpass("The same again: ").encode()
        if again != passphrase:
            raise BadInput(
                "the two passphrases differ; no pool was made", code="passphrases-differ", hint="run the command again"
            )
    return passphrase


def as_secret(text: bytes) -> Secret:
    """A recovery key if the text is one, else a passphrase."""
    from perdure.repository.keys import Passphrase, RecoveryKey

    if text.upper().startswith(b"PERDURE1-"):
        return RecoveryKey.parse(text.decode("ascii", "replace"))
    return Passphrase(text)


def _file_of_the_environment() -> Path | None:
    name = os.environ.get(VARIABLE, "")
    return Path(name) if name else None


def _first_line(file: Path) -> bytes:
    path = file.expanduser()
    try:
        with path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            line = opened.readline(_LIMIT)
    except OSError as error:
        raise BadInput(
            f"cannot read the passphrase file {path}: {error.strerror}",
            code="passphrase-file-unreadable",
            hint="check the path and that this user may read it",
        ) from error
    if stat.S_ISREG(mode) and mode & 0o077:
        remark(f"warning: others may read the passphrase file {path}; chmod 600 it")
    return _not_empty(line.removesuffix(b"\n").removesuffix(b"\r"), f"the first line of the passphrase file {path}")


def _not_empty(passphrase: bytes, what: str) -> bytes:
    if not passphrase:
        raise BadInput(
            f"{what} is empty; an empty passphrase protects nothing",
            code="passphrase-empty",
            hint="write the passphrase in the first line of the file, or type it",
        )
    return passphrase
