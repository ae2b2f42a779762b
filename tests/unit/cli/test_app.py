"""The command line as a whole: errors, exit statuses, JSON and help."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import __version__
from perdure.cli import app as program
from perdure.cli.passphrase import VARIABLE
from perdure.cli.session import Session
from perdure.model import errors

COMMANDS = [
    "pool create",
    "pool open",
    "pool info",
    "key list",
    "key passphrase",
    "key add-file",
    "key recovery",
    "key remove",
    "key rotate",
    "protect",
    "sync",
    "express-full",
    "watch",
    "check",
    "points",
    "recover",
    "browse",
    "verify",
    "status",
    "copy",
    "completion",
]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a home and a passphrase file of its own."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    passphrase.chmod(0o600)
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(VARIABLE, str(passphrase))
    monkeypatch.delenv("PERDURE_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def function_of(command: str) -> object:
    """The function behind a command, found the way the program finds it."""
    app = program.app
    for word in command.split():
        app = app[word]
    return app.default_command


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert program.run([*command.split(), "--help"]) == 0
    return capsys.readouterr().out


def test_every_command_of_the_manual_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of the program lists every command."""
    assert program.run(["--help"]) == 0
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert command.split()[0] in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_written_in_sentences_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help opens with a finished sentence and shows the command in use."""
    text = help_of(command, capsys)
    first = next(line for line in text.splitlines()[1:] if line.strip())

    assert re.fullmatch(r"[A-Z].*\.", first.strip())
    assert f"    perdure {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_is_described_in_a_sentence(command: str) -> None:
    """Every parameter of every command is described, and the description ends with a full stop."""
    function = function_of(command)
    assert callable(function)
    described = dict(re.findall(r"^    (\w+): (.+(?:\n        .+)*)", inspect.getdoc(function) or "", re.MULTILINE))
    for name in inspect.signature(function).parameters.keys() - {"common"}:
        assert described[name].endswith("."), f"{command}: {name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_offers_json_and_a_passphrase_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--json and --passphrase-file are options of every command."""
    text = help_of(command, capsys)

    assert "--json" in text
    assert "--passphrase-file" in text


@pytest.mark.parametrize("arguments", [["bogus"], ["pool", "create"], ["status", "--bogus"], ["completion", "tcsh"]])
def test_a_wrong_command_line_is_one_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be parsed gives exit status 2, one message and a hint, and nothing on standard output."""
    assert program.run(arguments) == errors.BadInput.exit_status
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"perdure: .+\nhint: see: perdure.* --help\n", err)


def test_errors_are_documents_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is a document on standard output, with the same exit status."""
    assert program.run(["sync", "nobody", "--json"]) == errors.NotFound.exit_status
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["error"].keys() == {"code", "message", "hint"}
    assert json.loads(out)["error"]["code"] == "source-not-found"


def test_an_unexpected_exception_is_a_short_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug gives exit status 1 and one message; the traceback is shown only when PERDURE_DEBUG is 1."""

    def broken(self: Session, name: str) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(Session, "protected", broken)

    assert program.run(["sync", "x"]) == 1
    assert "Traceback" not in (err := capsys.readouterr().err)
    assert "ZeroDivisionError: by accident" in err

    monkeypatch.setenv("PERDURE_DEBUG", "1")
    assert program.run(["sync", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command says so and exits as shells expect."""

    def interrupted(self: Session, name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "protected", interrupted)

    assert program.run(["sync", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the name and the version."""
    assert program.run(["--version"]) == 0
    assert capsys.readouterr().out == f"perdure {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_know_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The completion script of every shell offers every command."""
    assert program.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command.split()[-1] in script


def test_the_bash_completion_script_is_valid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Bash accepts its completion script."""
    program.run(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", script], check=True)


def test_a_pool_is_made_and_its_recovery_key_opens_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``pool create`` shows a recovery key, and that key in place of the passphrase opens the pool."""
    pool = str(tmp_path / "pool")
    assert program.run(["pool", "create", pool, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    key = tmp_path / "key"
    key.write_text(made["recovery_key"] + "\n")
    key.chmod(0o600)

    assert program.run(["pool", "info", pool, "--json", "--passphrase-file", str(key)]) == 0
    assert json.loads(capsys.readouterr().out)["pool"]["id"] == made["pool"]["id"]


def test_a_wrong_passphrase_opens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong passphrase is refused with the status of an unusable pool."""
    pool = str(tmp_path / "pool")
    wrong = tmp_path / "wrong"
    wrong.write_text("close sesame\n")
    wrong.chmod(0o600)
    assert program.run(["pool", "create", pool]) == 0

    assert program.run(["pool", "info", pool, "--passphrase-file", str(wrong)]) == errors.PoolUnusable.exit_status
    assert "wrong passphrase" in capsys.readouterr().err


def test_a_second_pool_in_one_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pool is never made over something that is there."""
    pool = str(tmp_path / "pool")
    assert program.run(["pool", "create", pool]) == 0
    assert program.run(["pool", "create", pool]) == errors.Refused.exit_status
    assert program.run(["pool", "info", pool]) == 0


def test_verify_finds_a_flipped_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``verify`` exits with 7 and names the damaged object."""
    pool = tmp_path / "pool"
    assert program.run(["pool", "create", str(pool)]) == 0
    assert program.run(["verify", str(pool)]) == 0
    slot = min((pool / "keys").iterdir())
    content = bytearray(slot.read_bytes())
    content[len(content) // 2] ^= 1
    slot.chmod(0o600)
    slot.write_bytes(content)
    capsys.readouterr()

    assert program.run(["verify", str(pool), "--json"]) == errors.Damaged.exit_status
    damage = json.loads(capsys.readouterr().out)["damage"]
    assert [finding["object"] for finding in damage] == [f"keys/{slot.name}"]


@pytest.mark.parametrize(
    ("extra", "status", "code"),
    [
        ([], 2, "target-needed"),
        (["--target", "x", "--in-place", "--yes"], 2, "target-needed"),
        (["--in-place"], 4, "confirmation-needed"),
    ],
)
def test_a_recovery_in_place_takes_two_words(
    extra: list[str], status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a target, a recovery asks for both --in-place and --yes before it looks at anything."""
    assert program.run(["recover", "x", "--to", "latest", *extra, "--json"]) == status
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_starting_imports_nothing_heavy() -> None:
    """The program's start does not pay for libraries that only the work needs."""
    heavy = ["numpy", "apsw", "cryptography", "dateparser", "blake3", "zstandard", "rich"]
    script = f"import sys, perdure.cli.app, perdure.cli.session; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_command_module_imports() -> None:
    """Every command is importable and named like its module."""
    for command in (each for each in COMMANDS if " " not in each):
        name = command.replace("-", "_")
        assert hasattr(importlib.import_module(f"perdure.cli.commands.{name}"), name)
