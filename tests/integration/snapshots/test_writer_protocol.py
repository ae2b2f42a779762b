"""The writer protocol over a real Unix-domain socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.snapshots.writer import (
    SOCKET_NAME,
    BackupKind,
    FailedAtFreeze,
    Frozen,
    NonRetryable,
    Retryable,
    WriterError,
    WriterTimeout,
)
from perdure.snapshots.writer_client import SocketWriter, find_writer
from perdure.snapshots.writer_server import serve_writer
from perdure.testing.memory_writer import COMPLETED, MAILBOXES, MemoryWriter


@pytest.fixture
def writer() -> MemoryWriter:
    """The engine's side."""
    return MemoryWriter()


@pytest.fixture
def served(writer: MemoryWriter, tmp_path: Path) -> Iterator[SocketWriter]:
    """A requester connected to it."""
    with serve_writer(writer, tmp_path / SOCKET_NAME), SocketWriter(tmp_path / SOCKET_NAME) as requester:
        yield requester


def test_descriptions_arrive_as_they_were_sent(served: SocketWriter) -> None:
    """Everything that a writer says of its databases arrives unchanged."""
    assert served.describe() == (MAILBOXES,)


def test_a_whole_backup(served: SocketWriter, writer: MemoryWriter) -> None:
    """A full backup goes through prepare, freeze, thaw and complete, and brings back what was truncated."""
    backup_set = served.prepare([MAILBOXES.name], BackupKind.FULL)
    assert writer.open_sets == {backup_set: ((MAILBOXES.name,), BackupKind.FULL)}
    assert served.freeze(backup_set) == Frozen(19.5, {MAILBOXES.name: 43})
    served.thaw(backup_set)
    assert served.complete(backup_set, [MAILBOXES.name]) == (COMPLETED,)
    assert writer.succeeded == (MAILBOXES.name,)
    assert not writer.open_sets


@pytest.mark.parametrize("kind", [Retryable, NonRetryable, WriterTimeout, FailedAtFreeze])
def test_errors_arrive_as_they_were_raised(served: SocketWriter, writer: MemoryWriter, kind: type[WriterError]) -> None:
    """A writer's error is raised at the requester with its kind, message and hint, and the connection goes on."""
    backup_set = served.prepare([MAILBOXES.name], BackupKind.COPY)
    writer.failure = kind("the disk of the log is full", hint="free some space")
    with pytest.raises(kind, match="the disk of the log is full") as caught:
        served.freeze(backup_set)
    assert type(caught.value) is kind
    assert caught.value.hint == "free some space"
    writer.failure = None
    assert served.freeze(backup_set).seconds_left == 19.5


def test_an_unexpected_error_of_the_writer_is_not_retryable(served: SocketWriter, writer: MemoryWriter) -> None:
    """A bug in a writer ends no connection; the requester is told."""
    writer.failure = ZeroDivisionError("division by zero")
    with pytest.raises(NonRetryable, match="division by zero"):
        served.describe()


def test_a_requester_that_vanishes_has_aborted(writer: MemoryWriter, tmp_path: Path) -> None:
    """When the connection of a requester ends, its sets are aborted, so that a killed requester blocks nobody."""
    with serve_writer(writer, tmp_path / SOCKET_NAME):
        requester = SocketWriter(tmp_path / SOCKET_NAME)
        requester.freeze(requester.prepare([MAILBOXES.name], BackupKind.FULL))
        requester.close()
        assert writer.aborted.wait(10)
        assert not writer.open_sets


def test_a_complete_set_is_not_aborted(writer: MemoryWriter, tmp_path: Path) -> None:
    """The end of a connection takes nothing back that was complete."""
    with serve_writer(writer, tmp_path / SOCKET_NAME), SocketWriter(tmp_path / SOCKET_NAME) as requester:
        requester.complete(requester.prepare([MAILBOXES.name], BackupKind.FULL), [MAILBOXES.name])
    assert "abort" not in writer.calls


def test_a_silent_writer_is_a_timeout(writer: MemoryWriter, tmp_path: Path) -> None:
    """A writer that does not answer in time is a timeout, and its late answer is never taken for another call's."""
    with serve_writer(writer, tmp_path / SOCKET_NAME), SocketWriter(tmp_path / SOCKET_NAME, 0.05) as requester:
        writer.answering.clear()
        try:
            with pytest.raises(WriterTimeout, match="did not answer 'describe'"):
                requester.describe()
        finally:
            writer.answering.set()
        with pytest.raises(WriterError):
            requester.prepare([MAILBOXES.name], BackupKind.FULL)
    assert not writer.open_sets


def test_nonsense_is_answered_with_a_failure(writer: MemoryWriter, tmp_path: Path) -> None:
    """What is not of the protocol is refused with a sentence and reaches no writer."""
    with serve_writer(writer, tmp_path / SOCKET_NAME), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / SOCKET_NAME))
        lines = raw.makefile("rb")
        for line in (b"hello", b'{"call":"format"}', b'{"call":"prepare","arguments":{"databases":["a"],"kind":"x"}}'):
            raw.sendall(line + b"\n")
            assert b'"non-retryable"' in lines.readline()
        lines.close()
    assert writer.calls == []


def test_a_folder_without_a_writer(tmp_path: Path, writer: MemoryWriter) -> None:
    """A folder has no writer when there is no socket, or only one of a dead process, which a new server replaces."""
    assert find_writer(tmp_path) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))
    assert find_writer(tmp_path) is None
    with serve_writer(writer, tmp_path / SOCKET_NAME):
        found = find_writer(tmp_path)
        assert found is not None
        found.close()
        with pytest.raises(FileExistsError), serve_writer(writer, tmp_path / SOCKET_NAME):
            pass
    assert not (tmp_path / SOCKET_NAME).exists()


def test_folders_may_lie_deep(tmp_path: Path, writer: MemoryWriter) -> None:
    """A store may lie deeper than the length of a socket's path."""
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    with serve_writer(writer, folder / SOCKET_NAME):
        found = find_writer(folder)
        assert found is not None
        with found:
            assert found.describe() == (MAILBOXES,)
