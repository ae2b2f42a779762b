"""Where the secret that opens a pool comes from: a file, the environment's file, or a person at a terminal.

A key file and a recovery key are told from a passphrase by how they begin; so no passphrase may begin like that.
"""

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

__all__ = ["VARIABLE", "as_secret", "new_passphrase", "passphrase_file", "read_passphrase"]

VARIABLE = "PERDURE_PASSPHRASE_FILE"

_LIMIT = 4096
_RECOVERY, _KEY_FILE = b"PERDURE1-", b"PERDURE-KEYFILE1-"


def read_passphrase(file: Path | None, *, what: str = "the storage pool") -> bytes:
    """The passphrase of an existing pool.

    Args:
        file: The file that the person named; else the environment's, else a prompt.
        what: What it opens, for the prompt.

    Raises:
        BadInput: There is no passphrase to be had, or it is empty.
    """
    file = passphrase_file(file)
    if file is not None:
        return _first_line(file)
    if not sys.stdin.isatty():
        raise BadInput(
            f"no passphrase for {what}: there is no terminal to ask at",
            code="passphrase-needed",
            hint=f"name a file that holds it with --passphrase-file, or in {VARIABLE}",
        )
    return _not_empty(_typed(f"Passphrase of {what}: "), "the passphrase")


def passphrase_file(file: Path | None) -> Path | None:
    """The file that is read: the one that the person named, else the environment's, else none."""
    return file or _file_of_the_environment()


def new_passphrase(
    file: Path | None, *, what: str = "the new storage pool", undone: str = "no pool was made", environment: bool = True
) -> bytes:
    """A passphrase that a pool shall open with from now on; a person types it twice.

    Args:
        file: The file that the person named; else the environment's, else a prompt.
        what: What it shall open, for the prompt.
        undone: What did not happen when there is no good passphrase.
        environment: The environment's file may hold it; not so where that holds the old one.

    Raises:
        BadInput: As :func:`read_passphrase`, or the two do not agree, or it would be taken for a key.
    """
    file = file or (_file_of_the_environment() if environment else None)
    if file is not None:
        passphrase = _first_line(file)
    elif sys.stdin.isatty():
        passphrase = _not_empty(_typed(f"New passphrase of {what}: "), "the new passphrase")
        if _typed("The same again: ") != passphrase:
            raise BadInput(
                f"the two passphrases differ; {undone}", code="passphrases-differ", hint="run the command again"
            )
    else:
        option = f"--passphrase-file, or in {VARIABLE}" if environment else "--new-passphrase-file"
        raise BadInput(
            f"no new passphrase for {what}: there is no terminal to ask at",
            code="passphrase-needed",
            hint=f"name a file that holds it with {option}",
        )
    if _looks_like_a_key(passphrase):
        raise BadInput(
            f"a passphrase that begins like a recovery key or a key file would be taken for one; {undone}",
            code="passphrase-is-a-key",
            hint="choose another passphrase; 'perdure key add-file' and 'perdure key recovery' make keys",
        )
    return passphrase


def as_secret(text: bytes) -> Secret:
    """A recovery key or a key file's key if the text is one, else a passphrase.

    Raises:
        BadInput: It begins like a key but is none (codes ``bad-recovery-key`` and ``bad-key-file``).
    """
    from perdure.repository.keys import KeyFile, Passphrase, RecoveryKey

    if text.upper().startswith(_RECOVERY):
        return RecoveryKey.parse(text.decode("ascii", "replace"))
    if text.upper().startswith(_KEY_FILE):
        return KeyFile.parse(text.decode("ascii", "replace"))
    return Passphrase(text)


def _looks_like_a_key(text: bytes) -> bool:
    return text.upper().startswith((_RECOVERY, _KEY_FILE))


def _typed(prompt: str) -> bytes:
    # What a terminal sends need not be UTF-8, and an encoding error would carry the passphrase.
    return getpass.getpass(prompt).encode("utf-8", "surrogateescape")


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
