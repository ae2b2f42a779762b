"""``perdure ese replay``: what it prints, and how it exits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from perdure.cli import app as program
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.journal import Journal
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.store import InformationStore, StoreOptions

NAME = "Mailbox-01"
BAD_INPUT, NOT_FOUND, REFUSED, DAMAGE = 2, 3, 4, 7


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> InformationStore:
    """A store that was killed with transactions under way."""
    folder = tmp_path_factory.mktemp("store")
    plan = StorePlan(page_size=4096, layout=LogLayout.APART, seed=8)
    made = InformationStore(folder, plan, clock=SteppingClock(), options=StoreOptions(write_chance=0.5))
    hosted = made.add_database(NAME, mailboxes=1)
    made.work(40)
    assert hosted.engine is not None
    hosted.engine.roll()
    made.work(40)
    for _ in range(3):
        hosted.step()
    hosted.engine.make_durable()
    made.crash()
    return made


def run(*arguments: object) -> int:
    return program.run(["ese", "replay", *map(str, arguments)])


def test_it_says_what_it_did(store: InformationStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the position, counts records and changes, and tells which transactions it took back."""
    hosted, output = store.databases[NAME], tmp_path / "out.edb"
    assert run(hosted.log_folder, "--database", hosted.path, "--output", output) == 0
    text = capsys.readouterr().out
    assert f"{output}: brought forward to 2," in text
    assert "clean shutdown" in text
    assert "Logs 1-2: " in text
    assert "Taken back: " in text
    assert Journal.load(store.journal_path(NAME)).compare(output) == []


def test_it_says_it_as_json(store: InformationStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json it prints one document with everything in it."""
    output = tmp_path / "out.edb"
    assert run(store.databases[NAME].log_folder, "--to", "1", "--output", output, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["verdict"] == "sound"
    assert shown["from_nothing"] is True
    assert shown["generations"] == [1, 1]
    assert shown["position"].startswith("1,")
    assert shown["findings"] == []
    assert shown["changed"] > 100


def test_what_cannot_be(store: InformationStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each reason has its status: input, missing things, refusals, damage."""
    hosted, output = store.databases[NAME], tmp_path / "out.edb"
    there = tmp_path / "there.edb"
    there.write_bytes(b"x")
    image = ["--database", hosted.path]
    assert run(hosted.log_folder, "--to", "tomorrow", "--output", output) == BAD_INPUT
    assert run(hosted.log_folder, "--to", "99", "--output", output) == BAD_INPUT
    assert run(tmp_path / "none", "--output", output) == NOT_FOUND
    assert run(hosted.log_folder, *image, "--output", there) == REFUSED
    assert run(hosted.log_folder, *image, "--to", "1:2", "--output", output) == REFUSED
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(hosted.log_folder / "E00.log", part)
    assert run(part, *image, "--output", output) == DAMAGE
    assert "is missing" in capsys.readouterr().err
    assert not output.exists()
