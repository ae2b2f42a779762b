"""The command by which a server fetches log from a pool."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from perdure.cli.passphrase import passphrase_file
from perdure.model.errors import BadInput

if TYPE_CHECKING:
    from perdure.cli.session import Session
    from perdure.protection.protected import Protected

__all__ = ["fetch_command"]


def fetch_command(session: Session, protected: Protected) -> str:
    """For the shell, up to the names of the files.

    Raises:
        BadInput: The passphrase was typed; nobody will be there to type it for the server.
    """
    file = passphrase_file(session.options.passphrase_file)
    if file is None:
        raise BadInput(
            "the server will have to open the pool by itself, so the passphrase has to be in a file",
            code="passphrase-needed",
            hint="name a file that the server's user may read with --passphrase-file, "
            "or leave --fetch-wal out to have all log in the directory",
        )
    words = [sys.executable, "-P", "-m", "perdure", "wal-fetch", "--pool", session.url_of(protected)]
    return shlex.join([*words, "--passphrase-file", str(file.absolute()), protected.source.id])
