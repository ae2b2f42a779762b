from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_brings_back_every_moment(tmp_path: Path) -> None:
    """A smaller demo with frequent express fulls runs the whole main job, and passes all of its own checks."""
    command = [sys.executable, "-m", "perdure.testing.demo", "--act", "1", "--dir", str(tmp_path / "demo")]
    ended = subprocess.run(
        [*command, "--size", "60", "--seconds", "15", "--seed", "1", "--express-full-every", "0.7"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Verified" in ended.stdout


@pytest.mark.slow
def test_the_demo_brings_back_a_mailbox_database(tmp_path: Path) -> None:
    """A smaller second act passes all of its own checks: journal, pages, trees, and two independent readers."""
    command = [sys.executable, "-m", "perdure.testing.demo", "--act", "2", "--dir", str(tmp_path / "demo")]
    ended = subprocess.run(
        [*command, "--size", "10", "--seconds", "20", "--seed", "1"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "By independent readers" in ended.stdout
    assert "libesedb" in ended.stdout
    assert "dissect" in ended.stdout


def test_the_demo_says_why_it_failed(tmp_path: Path) -> None:
    """A folder that is not empty is refused before anything is done in it."""
    (tmp_path / "mine").write_text("precious")
    command = [sys.executable, "-m", "perdure.testing.demo", "--dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "not empty" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
