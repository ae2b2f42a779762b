"""Where passphrases come from."""

from __future__ import annotations

import getpass
import io
import sys
from pathlib import Path

import pytest

from perdure.cli.passphrase import VARIABLE, as_secret, new_passphrase, read_passphrase
from perdure.model.errors import BadInput
from perdure.repository.keys import KeyFile, Passphrase, RecoveryKey


@pytest.fixture(autouse=True)
def no_file_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def passphrase_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    waiting = list(answers)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: waiting.pop(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"open sesame\n", b"open sesame"), (b"one\r\ntwo\n", b"one"), (b" spaces count ", b" spaces count ")],
)
def test_the_first_line_of_the_file_is_the_passphrase(tmp_path: Path, content: bytes, expected: bytes) -> None:
    """Only the line's end is cut off; everything else of the first line counts."""
    assert read_passphrase(passphrase_file(tmp_path, content)) == expected


def test_the_option_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named on the command line is taken before the one named by the environment."""
    other = tmp_path / "other"
    other.write_bytes(b"from the environment")
    other.chmod(0o600)
    monkeypatch.setenv(VARIABLE, str(other))

    assert read_passphrase(None) == b"from the environment"
    assert read_passphrase(passphrase_file(tmp_path, b"from the option")) == b"from the option"


def test_a_person_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the terminal is asked, without echo."""
    at_a_terminal(monkeypatch, "typed")

    assert read_passphrase(None) == b"typed"


def test_a_new_passphrase_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in a new passphrase is noticed before a pool depends on it."""
    at_a_terminal(monkeypatch, "typed", "typod")

    with pytest.raises(BadInput) as caught:
        new_passphrase(None)
    assert caught.value.code == "passphrases-differ"


def test_no_terminal_and_no_file_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a terminal is told how to give the passphrase, rather than left waiting."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    with pytest.raises(BadInput) as caught:
        read_passphrase(None)
    assert caught.value.code == "passphrase-needed"
    assert VARIABLE in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\nsecond line\n"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty first line never becomes a passphrase."""
    with pytest.raises(BadInput) as caught:
        read_passphrase(passphrase_file(tmp_path, content))
    assert caught.value.code == "passphrase-empty"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """The error about a missing passphrase file names it."""
    with pytest.raises(BadInput, match="missing") as caught:
        read_passphrase(tmp_path / "missing")
    assert caught.value.code == "passphrase-file-unreadable"


def test_a_file_that_others_may_read_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loose permissions bring a warning on standard error; tight ones bring none."""
    read_passphrase(passphrase_file(tmp_path, b"x", 0o640))
    assert "chmod 600" in capsys.readouterr().err

    read_passphrase(passphrase_file(tmp_path, b"x", 0o600))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [RecoveryKey, KeyFile])
def test_a_key_is_told_from_a_passphrase(kind: type[RecoveryKey | KeyFile]) -> None:
    """What starts like a recovery key or key file is read as one, so that an error in it is reported as such."""
    key = kind.random()

    assert as_secret(key.text().encode()) == key
    assert as_secret(b"open sesame") == Passphrase(b"open sesame")
    with pytest.raises(BadInput):
        as_secret(key.text().encode()[:-1])
