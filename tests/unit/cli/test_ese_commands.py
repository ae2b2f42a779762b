"""``perdure ese``: what each command prints, and how it exits."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from perdure.cli import app as program
from perdure.ese.columns import Column, ColumnType
from perdure.testing.ese_databases import TableContent, database_bytes, record_bytes
from perdure.testing.ese_logs import (
    EXAMPLE_BEGINNING,
    LogMaker,
    checkpoint_bytes,
    example_records,
    example_times,
    stream_signature,
)

ROOT = Path(__file__).parents[3]
COMMANDS = ["header", "verify", "dump-log", "space", "tables", "rows", "replay"]
COLUMNS = (Column(1, "number", ColumnType.LONG, 4, offset=4), Column(128, "name", ColumnType.TEXT, 255, codepage=1252))
DAMAGE, NOT_FOUND, UNUSABLE, BAD_INPUT = 7, 3, 5, 2


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    records = [
        (bytes([0x7F, 0, 0, 0, at]), record_bytes(COLUMNS, {1: bytes([at, 0, 0, 0]), 128: b"row"}, large=True))
        for at in range(4)
    ]
    path = tmp_path / "things.edb"
    path.write_bytes(database_bytes(32768, TableContent("things", COLUMNS, records)))
    return path


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING))
    contents = maker.chain([example_records(10), example_records(12)], 1, example_times(2))
    (folder / "E0000000001.log").write_bytes(contents[0])
    (folder / "E00.log").write_bytes(contents[1])
    (folder / "E00.chk").write_bytes(checkpoint_bytes(maker.signature, 1, 2, 40))
    return folder


def run(*arguments: object) -> int:
    return program.run(["ese", *map(str, arguments)])


def damaged(path: Path, place: int, length: int = 30) -> Path:
    content = bytearray(path.read_bytes())
    content[place : place + length] = bytes(byte ^ 0x5A for byte in content[place : place + length])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_written_in_sentences_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help opens with a finished sentence and shows the command in use."""
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    first = next(line for line in text.splitlines()[1:] if line.strip())

    assert re.fullmatch(r"[A-Z].*\.", first.strip())
    assert f"    perdure ese {command}" in text
    assert "--json" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_is_described_in_a_sentence_and_every_option_documented(command: str) -> None:
    """Every parameter is described with a full stop, and the page on ESE names every command and option."""
    function = program.app["ese"][command].default_command
    described = dict(re.findall(r"^    (\w+): (.+(?:\n        .+)*)", inspect.getdoc(function) or "", re.MULTILINE))
    page = (ROOT / "docs/reference/ese.md").read_text(encoding="utf-8")
    parameters = inspect.signature(function).parameters

    assert f"`perdure ese {command}" in page
    for name in parameters.keys() - {"common"}:
        assert described[name].endswith("."), name
        if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY:
            assert f"--{name}" in page


def test_the_header_of_every_kind_of_file_is_shown(
    database: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Databases, logs and checkpoints are told apart, and each is shown with its fields."""
    assert run("header", database, logs / "E00.log", logs / "E00.chk", "--json") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [each["kind"] for each in shown] == ["database", "log", "checkpoint"]
    assert shown[0]["state"] == "clean shutdown"
    assert shown[0]["header"]["page_size"] == 32768
    assert shown[1]["header"]["generation"] == 2
    assert shown[2]["header"]["checkpoint"] == "1,2,28"
    assert run("header", database, logs / "E00.log", logs / "E00.chk") == 0
    assert "clean shutdown" in capsys.readouterr().out


def test_a_damaged_header_copy_exits_with_7(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The copy that is sound is shown, and the status says that there is damage."""
    assert run("header", damaged(database, 500)) == DAMAGE
    assert "only the shadow one is sound" in capsys.readouterr().out


def test_a_sound_folder_verifies(database: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database, a chain of logs and a checkpoint verify with status 0, with their trees too."""
    assert run("verify", database, logs, "--trees") == 0
    said = capsys.readouterr().out
    assert "E00 logs 1-2: 2 files" in said
    assert said.endswith("Sound.\n")


def test_damage_in_a_database_names_file_and_page(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged page gives status 7 and its number, as text and as JSON."""
    damaged(database, (26 + 1) * 32768 + 100)

    assert run("verify", database) == DAMAGE
    assert "things.edb: page 26:" in capsys.readouterr().out
    assert run("verify", database, "--json") == DAMAGE
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "damage"
    assert report["databases"][0]["damaged"] == ["page 26"]


def test_damage_in_a_log_names_file_segment_and_position(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged segment gives status 7, its number, and the position at which recovery ends."""
    damaged(logs / "E0000000001.log", 2 * 4096 + 100)

    assert run("verify", logs) == DAMAGE
    assert "E0000000001.log: segment 2 (1,2,0):" in capsys.readouterr().out
    assert run("dump-log", logs / "E0000000001.log") == DAMAGE


def test_a_streaming_file_is_not_verified_and_the_status_says_so(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What holds data and cannot be verified keeps the status from being 0."""
    (tmp_path / "things.stm").write_bytes(bytes(8192))

    assert run("verify", database, tmp_path / "things.stm") == 8
    assert "not everything was verified" in capsys.readouterr().out


def test_a_log_is_dumped_with_its_records(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The types of records are counted, the pages that they change are named, and every record can be shown."""
    assert run("dump-log", logs / "E00.log", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["type"]: each["records"] for each in found["types"]}["Insert"] == 12
    assert found["changes"][0]["pages"] == [*range(100, 112), 299, 300, 301, 302]
    assert run("dump-log", logs / "E00.log", "--records") == 0
    said = capsys.readouterr().out
    assert "Split2" in said
    assert "page=111" in said


def test_tables_columns_and_space_are_listed(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables of a database are listed, their columns if asked, and the space of every tree."""
    assert run("tables", database, "--json", "--columns") == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [column["name"] for column in table["columns"]] == ["number", "name"]
    assert run("tables", database) == 0
    assert run("tables", database, "--columns") == 0
    assert run("space", database) == 0
    assert "the database" in capsys.readouterr().out
    assert run("space", database, "--json") == 0
    assert json.loads(capsys.readouterr().out)["trees"][0]["owned_pages"] == 64


def test_rows_are_shown_up_to_a_limit(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows come in the order of their keys, each on a line with --json."""
    assert run("rows", database, "things", "--limit", "2", "--json") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["values"] for each in shown] == [{"number": 0, "name": "row"}, {"number": 1, "name": "row"}]
    assert run("rows", database, "things") == 0
    assert capsys.readouterr().out.count("name: row") == 4


def test_reading_across_a_flipped_bit_says_so(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows on a page with one flipped bit are shown, and the status is that of damage."""
    content = bytearray(database.read_bytes())
    content[(26 + 1) * 32768 + 100] ^= 1
    database.write_bytes(content)

    assert run("rows", database, "things") == DAMAGE
    out, err = capsys.readouterr()
    assert out.count("name: row") == 4
    assert "page 26: a flipped bit was corrected" in err


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["verify", "missing"], NOT_FOUND, "file-not-found"),
        (["header", "missing"], NOT_FOUND, "file-not-found"),
        (["verify", "/dev/null"], UNUSABLE, "not-an-ese-file"),
        (["rows", "DATABASE", "nothing"], NOT_FOUND, "table-not-found"),
        (["rows", "DATABASE", "things", "--limit", "-1"], BAD_INPUT, "bad-limit"),
        (["tables", "LOG"], UNUSABLE, "not-an-ese-file"),
        (["dump-log", "DATABASE"], DAMAGE, ""),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_code(
    arguments: list[str], status: int, code: str, *, database: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong files, missing files and missing tables are errors for people, with their codes in JSON."""
    names = {"DATABASE": str(database), "LOG": str(logs / "E00.log")}

    assert run(*[names.get(word, word) for word in arguments], "--json") == status
    if code:
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code
