"""The program ``perdure``: its commands, and the one place where errors become messages and exit statuses."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from perdure import __version__
from perdure.cli.ending import Ending
from perdure.cli.output import fail, remark
from perdure.model.errors import BadInput, PerdureError

__all__ = ["app", "main", "run"]

_COMMANDS = "perdure.cli.commands"

_SERVER_STOPS = 200
"""PostgreSQL takes a lower status of its ``restore_command`` for the end of the log, and would end a recovery there."""

app = App(
    name="perdure",
    help="Protect live data continuously, and bring back any second of it.",
    version=f"perdure {__version__}",
    help_format="plaintext",
    default_parameter=Parameter(negative="", show_default=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
pool = App(name="pool", help="Make, open and look at storage pools.")
app.command(pool)
pool.command(f"{_COMMANDS}.pool:create")
pool.command(f"{_COMMANDS}.pool:open_", name="open")
pool.command(f"{_COMMANDS}.pool:info")
key = App(name="key", help="See and change the ways that a storage pool opens.")
app.command(key)
key.command(f"{_COMMANDS}.key:list_", name="list")
key.command(f"{_COMMANDS}.key:passphrase")
key.command(f"{_COMMANDS}.key:add_file", name="add-file")
key.command(f"{_COMMANDS}.key:recovery")
key.command(f"{_COMMANDS}.key:remove")
key.command(f"{_COMMANDS}.key:rotate")
for _name in (
    "protect",
    "sync",
    "express-full",
    "watch",
    "check",
    "points",
    "recover",
    "wal-fetch",
    "drill",
    "browse",
    "verify",
    "retention",
    "prune",
    "gc",
    "copy",
    "hold",
    "delete",
    "status",
    "completion",
):
    _module = _name.replace("-", "_")
    app.command(f"{_COMMANDS}.{_module}:{_module}", name=_name)
app.command(f"{_COMMANDS}.hold:release")
ese = App(name="ese", help="Read and verify the files of Exchange's storage engine (ESE).")
app.command(ese)
for _name in ("header", "verify", "dump-log", "space", "tables", "rows", "replay"):
    _module = _name.replace("-", "_")
    ese.command(f"{_COMMANDS}.ese.{_module}:{_module}", name=_name)

exchange = App(name="exchange", help="What is special to Exchange: which log may be truncated, and why not more.")
app.command(exchange)
exchange.command(f"{_COMMANDS}.exchange:truncation")


def main() -> NoReturn:
    """Run the program."""
    ending = Ending()
    signal.signal(signal.SIGTERM, _end)
    try:
        ending.status = run(sys.argv[1:])
    except SystemExit as end:
        ending.status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.exit(ending.status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit status (see :mod:`perdure.model.errors`)."""
    try:
        status = app(list(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except CycloptsError as error:
        return _failed(_usage_error(error), arguments)
    except PerdureError as error:
        return _failed(error, arguments)
    except KeyboardInterrupt:
        remark("interrupted; what was acknowledged before is durable")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output went away; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - the last resort is a message, not a traceback
        if os.environ.get("PERDURE_DEBUG") == "1":
            traceback.print_exc()
        return _failed(_bug(error), arguments)


def _failed(error: PerdureError, arguments: Sequence[str]) -> int:
    status = fail(error, as_json="--json" in arguments)
    return _SERVER_STOPS if arguments[:1] == ["wal-fetch"] else status


def _usage_error(error: CycloptsError) -> BadInput:
    text = " ".join(str(error).split())
    chain = " ".join(getattr(error, "command_chain", None) or ())
    command = f"perdure {chain}".strip()
    return BadInput(text[:1].lower() + text[1:], code="bad-usage", hint=f"see: {command} --help")


def _bug(error: Exception) -> PerdureError:
    return PerdureError(
        f"unexpected {type(error).__name__}: {error}; the command stopped, and what was acknowledged before is durable",
        code="unexpected",
        hint="this is a bug in perdure; run it again with PERDURE_DEBUG=1 for a traceback to report",
    )


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End on SIGTERM like on an error, so that temporary files go and locks are dropped in order."""
    sys.exit(128 + number)
