"""Which files a replay takes for the logs of a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perdure.ese.replay.errors import NoSuchDatabase
from perdure.ese.replay.log_stream import find_streams
from perdure.testing.ese_logs import EXAMPLE_BEGINNING, LogMaker, example_records, example_times, stream_signature


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "made"
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING))
    path.write_bytes(maker.log(example_records(4), 1, example_times(1)[0]))
    return path


@pytest.mark.parametrize("name", ["E00.log", "E0000000001.log", "edb.log", "V0100001.log", "USS.jtx", "kept copy.log"])
def test_a_log_of_any_name(log: Path, tmp_path: Path, name: str) -> None:
    """Logs are found by their names, and where none has the name of one, by what they are."""
    folder = tmp_path / "logs"
    folder.mkdir()
    shutil.copy(log, folder / name)
    (folder / "setup.log").write_text("no log of a database")
    assert [found.path.name for found in find_streams([folder])[0].logs] == [name]


def test_a_copy_beside_the_logs_is_left_out(log: Path, tmp_path: Path) -> None:
    """A copy of a log under another name does not stand beside the log itself."""
    folder = tmp_path / "logs"
    folder.mkdir()
    shutil.copy(log, folder / "E0000000001.log")
    shutil.copy(log, folder / "E0000000001 - Copy.log")
    assert [found.path.name for found in find_streams([folder])[0].logs] == ["E0000000001.log"]


def test_a_folder_without_logs(tmp_path: Path) -> None:
    """A folder that holds no log says so."""
    (tmp_path / "setup.log").write_text("no log of a database")
    with pytest.raises(NoSuchDatabase, match="no logs to replay"):
        find_streams([tmp_path])
