"""``perdure key``: changing how a pool opens, from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure.cli import app as program
from perdure.cli.passphrase import VARIABLE
from perdure.model.errors import PerdureError
from perdure.repository import keys

OLD, NEW, WRONG = "old-Secret words", "new-Secret words", "wrong-Secret words"


@dataclass
class Shell:
    """Runs the program in this process."""

    place: Path
    capsys: pytest.CaptureFixture[str]
    said: str = ""

    @property
    def pool(self) -> Path:
        return self.place / "pool"

    def file(self, name: str, text: str) -> Path:
        path = self.place / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def run(self, *arguments: object, status: int = 0) -> str:
        found = program.run(list(map(str, arguments)))
        out, err = self.capsys.readouterr()
        self.said += out + err
        assert found == status, f"{arguments}: {out}{err}"
        return out + err

    def document(self, *arguments: object, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status))

    def refused(self, *arguments: object) -> str:
        found = program.run([*map(str, arguments), "--json"])
        out, err = self.capsys.readouterr()
        self.said += out + err
        assert found not in (0, 1), f"{arguments}: {out}{err}"
        return str(json.loads(out.splitlines()[-1])["error"]["code"])

    def opens(self, secret: Path) -> bool:
        found = program.run(["pool", "open", str(self.pool), "--passphrase-file", str(secret), "--json"])
        out = self.capsys.readouterr().out
        assert found == 0 or json.loads(out)["error"]["code"] == "wrong-passphrase"
        return found == 0

    def slots(self) -> dict[str, str]:
        """Kind and id of every slot; there is one of each kind."""
        return {slot["kind"]: slot["id"] for slot in self.document("key", "list", self.pool)["slots"]}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """A pool with the passphrase ``OLD``, which the environment names, and its recovery key in the file ``paper``."""
    monkeypatch.setattr(keys, "_SCRYPT", (1 << 4, 8, 1))
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERDURE_DEBUG", "1")
    shell = Shell(tmp_path, capsys)
    monkeypatch.setenv(VARIABLE, str(shell.file("old", OLD + "\n")))
    shell.file("new", NEW + "\n")
    made = shell.document("pool", "create", shell.pool)
    shell.file("paper", made["recovery_key"])
    shell.said = ""
    return shell


def test_a_passphrase_is_changed(shell: Shell) -> None:
    """The new passphrase opens the pool, the old one does not, and the recovery key still does."""
    document = shell.document("key", "passphrase", shell.pool, "--new-passphrase-file", shell.place / "new")

    assert [slot["kind"] for slot in document["added"]] == ["passphrase"]
    assert [slot["kind"] for slot in document["dropped"]] == ["passphrase"]
    assert [shell.opens(shell.place / name) for name in ("old", "new", "paper")] == [False, True, True]


def test_a_lost_passphrase_is_replaced_by_the_recovery_key(shell: Shell) -> None:
    """The recovery key alone is enough to give the pool a new passphrase."""
    said = shell.run(
        *("key", "passphrase", shell.pool, "--new-passphrase-file", shell.place / "new"),
        *("--passphrase-file", shell.place / "paper"),
    )

    assert "new passphrase" in said
    assert "No longer opens the pool: passphrase" in said
    assert [shell.opens(shell.place / name) for name in ("old", "new", "paper")] == [False, True, True]


def test_a_new_passphrase_is_typed_twice(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal the new passphrase is asked for twice, and a typing error changes nothing."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = [NEW, WRONG, NEW, NEW]
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))

    assert shell.refused("key", "passphrase", shell.pool) == "passphrases-differ"
    assert shell.opens(shell.place / "old")
    shell.run("key", "passphrase", shell.pool)
    assert shell.opens(shell.place / "new")


def test_the_old_passphrase_of_the_environment_is_never_taken_for_the_new_one(shell: Shell) -> None:
    """Without a terminal and without --new-passphrase-file there is no new passphrase."""
    assert shell.refused("key", "passphrase", shell.pool) == "passphrase-needed"


def test_a_key_file_opens_the_pool_until_it_is_removed(shell: Shell) -> None:
    """A key file is made for its owner only, works wherever a passphrase file does, and its slot can be removed."""
    key_file = shell.place / "pool.key"
    document = shell.document("key", "add-file", shell.pool, key_file)

    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key_file.read_text().startswith("PERDURE-KEYFILE1-")
    assert document["file"] == str(key_file)
    assert shell.opens(key_file)
    assert shell.refused("key", "add-file", shell.pool, key_file) == "key-file-exists"
    assert shell.opens(key_file)

    shell.run("key", "remove", shell.pool, document["added"][0]["id"])
    assert not shell.opens(key_file)


def test_a_key_file_that_opens_nothing_is_not_left_behind(shell: Shell) -> None:
    """When the slot cannot be written the new file goes again; a key file inside the pool is never made."""
    key_file = shell.place / "pool.key"
    (shell.pool / "keys" / "set-00000002").mkdir()
    (shell.pool / "keys" / "set-00000001").mkdir()

    program.run(["key", "add-file", str(shell.pool), str(key_file)])

    assert not key_file.exists()
    assert shell.refused("key", "add-file", shell.pool, shell.pool / "k") == "key-file-in-pool"
    assert shell.refused("key", "add-file", shell.pool, shell.place / "no" / "k") == "key-file-unwritable"


def test_a_new_recovery_key_is_shown_once(shell: Shell) -> None:
    """The key that is shown opens the pool, and the earlier one does so no longer."""
    said = shell.run("key", "recovery", shell.pool)
    shown = re.findall(r"PERDURE1-[A-Z2-7-]+", said)

    assert len(shown) == 1
    assert shell.opens(shell.file("shown", shown[0]))
    assert not shell.opens(shell.place / "paper")
    document = shell.document("key", "recovery", shell.pool)
    assert shell.opens(shell.file("again", document["recovery_key"]))
    assert not shell.opens(shell.place / "shown")


def test_the_way_that_is_used_is_not_removed(shell: Shell) -> None:
    """A slot is removed only with another one; a slot that does not exist is named."""
    slots = shell.slots()

    assert shell.refused("key", "remove", shell.pool, slots["passphrase"]) == "last-way-in"
    assert shell.refused("key", "remove", shell.pool, "ffffffff") == "slot-not-found"
    shell.run("key", "remove", shell.pool, slots["passphrase"], "--passphrase-file", shell.place / "paper")
    assert list(shell.slots()) == ["recovery"]


def test_the_keys_are_rotated(shell: Shell) -> None:
    """The pool opens with what was given and the new recovery key; a key file is dropped only with --yes."""
    key_file = shell.place / "pool.key"
    shell.run("key", "add-file", shell.pool, key_file)

    assert shell.refused("key", "rotate", shell.pool) == "confirmation-needed"
    assert shell.refused("key", "rotate", shell.pool, "--keep", shell.place / "paper") == "bad-input"
    document = shell.document("key", "rotate", shell.pool, "--keep", key_file)
    shell.file("shown", document["recovery_key"])
    assert document["key_epochs"] == 2
    assert [slot["kind"] for slot in document["added"]] == ["passphrase", "keyfile", "recovery"]
    assert [shell.opens(shell.place / name) for name in ("old", "pool.key", "shown", "paper")] == [
        *(True, True, True, False)
    ]

    said = shell.run("key", "rotate", shell.pool, "--yes", "--passphrase-file", key_file)
    assert "No longer opens the pool: " in said
    assert [shell.opens(shell.place / name) for name in ("old", "pool.key", "shown")] == [False, True, False]
    assert shell.document("key", "list", shell.pool)["key_epochs"] == 3


def test_the_list_needs_no_secret(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in is listed with its kind and date, also when none is at hand."""
    monkeypatch.delenv(VARIABLE)

    said = shell.run("key", "list", shell.pool)

    assert re.search(r"[0-9a-f]{8}  passphrase    20\d\d-", said)
    assert "recovery key" in said
    assert "1 master key:" in said


def test_a_passphrase_that_looks_like_a_key_is_refused(shell: Shell) -> None:
    """It would be taken for a key when the pool is opened, and so never open it."""
    for text in ("PERDURE1-MYWORDS", "perdure-keyfile1-mywords"):
        file = shell.file("odd", text)
        assert shell.refused("key", "passphrase", shell.pool, "--new-passphrase-file", file) == "passphrase-is-a-key"
        assert shell.refused("pool", "create", shell.place / "p", "--passphrase-file", file) == "passphrase-is-a-key"


def test_no_failure_shows_a_secret(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, no passphrase and no part of a key is in what is printed or in the exception behind it."""
    raised: list[BaseException] = []
    remembered = program.fail

    def remember(error: PerdureError, *, as_json: bool) -> int:
        raised.append(error)
        return remembered(error, as_json=as_json)

    monkeypatch.setattr(program, "fail", remember)
    key_file = shell.place / "pool.key"
    shell.run("key", "add-file", shell.pool, key_file)
    paper, line = (shell.place / "paper").read_text(), key_file.read_text().splitlines()[0]
    shell.file("strange key", keys.KeyFile(b"s" * 32).text())
    shell.file("bad paper", paper[:-1] + ("A" if paper[-1] != "A" else "B"))
    shell.file("bad key", line[:-1] + ("A" if line[-1] != "A" else "B"))
    shell.file("wrong", WRONG)
    new = ("--new-passphrase-file", shell.place / "new")
    slots = shell.slots()
    commands: list[tuple[object, ...]] = [
        ("list", shell.pool),
        ("passphrase", shell.pool, *new),
        ("add-file", shell.pool, shell.place / "more.key"),
        ("recovery", shell.pool),
        ("remove", shell.pool, slots["keyfile"]),
        ("rotate", shell.pool, "--keep", shell.place / "wrong"),
        ("rotate", shell.pool, "--keep", shell.place / "strange key"),
        ("rotate", shell.pool, "--keep", shell.place / "bad key"),
        ("rotate", shell.pool),
    ]

    def every_command(*more: object) -> None:
        for command in commands:
            program.run(["key", *map(str, command), *map(str, more)])
            out, err = shell.capsys.readouterr()
            shell.said += re.sub(r"PERDURE1-[A-Z2-7-]+", "", out) + err

    for secret in ("wrong", "strange key", "bad paper", "bad key", "missing"):
        every_command("--passphrase-file", shell.place / secret)
    shell.refused("pool", "open", shell.pool, "--passphrase-file", shell.place / "wrong")
    shell.refused("key", "remove", shell.pool, slots["passphrase"])
    shell.refused("key", "add-file", shell.pool, key_file)
    shell.refused("key", "rotate", shell.pool, "--keep", key_file, "--keep", shell.place / "paper")
    for failing in ("create", "read", "list", "delete"):
        with monkeypatch.context() as patch:
            patch.setattr(f"perdure.storage.local.LocalStorage.{failing}", _broken)
            every_command()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: WRONG + "\udcff")
    monkeypatch.delenv(VARIABLE)
    every_command()

    assert len(raised) > 60
    secrets = [OLD, NEW, WRONG, *(part for text in (paper, line) for part in text.split("-")[2:] if len(part) == 5)]
    behind = [each for error in raised for each in _chain(error)]
    everything = shell.said + "".join(f"{error!r}{error}{error.args}{vars(error)}" for error in behind)
    assert [secret for secret in secrets if secret in everything] == []


def _broken(*_arguments: object) -> None:
    raise RuntimeError("the storage has a bug")


def _chain(error: BaseException) -> Iterator[BaseException]:
    yield error
    for behind in (error.__cause__, error.__context__):
        if behind is not None:
            yield from _chain(behind)
