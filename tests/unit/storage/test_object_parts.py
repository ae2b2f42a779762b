"""The parts of object storage that need no server: calls, errors, the spool and ranges."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.exceptions import GenericError, PermissionDeniedError

from perdure.model.errors import PerdureError
from perdure.storage.contract import StorageFailed, StorageFull
from perdure.storage.object_calls import Attempt, Calls, Patience
from perdure.storage.object_errors import understood
from perdure.storage.object_spool import SpooledObject
from perdure.storage.object_urls import ObjectPlace
from perdure.storage.ranges import spans_of

PLACE = ObjectPlace.parse("s3://bucket/p")
BUSY = "Server returned non-2xx status code: 503 Service Unavailable: "


# --- calls ---


def test_a_failure_of_the_moment_is_tried_again() -> None:
    """A call goes on after failures that can pass, and gives the first result."""
    attempts: list[int] = []

    async def attempt(this: Attempt) -> str:
        attempts.append(this.number)
        if this.number < 2:
            raise GenericError(BUSY)
        return "done"

    assert Calls(PLACE, Patience(total_s=60)).run("do it", attempt) == "done"
    assert attempts == [0, 1, 2]


def test_a_refusal_is_not_tried_again() -> None:
    """A call ends with the first failure that cannot pass."""
    attempts: list[int] = []

    async def attempt(this: Attempt) -> None:
        attempts.append(this.number)
        raise PermissionDeniedError("status code: 403 Forbidden: <Code>AccessDenied</Code>")

    with pytest.raises(StorageFailed):
        Calls(PLACE, Patience(total_s=60)).run("do it", attempt)
    assert attempts == [0]


def test_a_call_without_an_answer_ends() -> None:
    """An attempt that never ends is given up, and so is the call; whether a write happened is said to be unknown."""

    async def attempt(_: Attempt) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StorageFailed, match="whether it was written is not known") as caught:
        Calls(PLACE, Patience(answer_s=0.02, total_s=0.1)).run("do it", attempt, writing=True)
    assert caught.value.code == "storage-unreachable"


def test_an_attempt_has_the_time_that_its_bytes_need() -> None:
    """Once it is known how much comes, an attempt may take longer than an answer."""
    ticks = 0

    async def attempt(this: Attempt) -> int:
        nonlocal ticks
        this.expect(10_000)
        while ticks < 20:
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks

    assert Calls(PLACE, Patience(answer_s=0.05, total_s=0.05, slowest=100)).run("read", attempt) == 20


# --- errors ---


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('Debug source: ConnectError("dns error",', "storage-unreachable", "no such host"),
        ("Debug source: kind: ConnectionRefused,", "storage-unreachable", "connection refused"),
        ("Debug source: InvalidCertificate(UnknownIssuer)", "storage-unreachable", "not trusted"),
        ("Debug source: kind: Timeout", "storage-unreachable", "no answer in time"),
        ("HTTP error: request or response body error", "storage-unreachable", "connection broke"),
        ("Error performing PUT http://169.254.169.254/latest/api/token in 1s", "no-credentials", "no credentials"),
        ("Received redirect without LOCATION, incorrectly configured region", "wrong-region", "another region"),
        ("status code: 404 Not Found: <Code>NoSuchBucket</Code>", "bucket-missing", "no bucket 'bucket'"),
        (BUSY + "<Code>SlowDown</Code>", "storage-failed", "503 SlowDown"),
    ],
)
def test_errors_say_what_happened(text: str, code: str, words: str) -> None:
    """What obstore and the server say becomes one sentence with a stable code."""
    error = understood(GenericError(text), PLACE, "read a", writing=False).error

    assert error.code == code
    assert words in error.message
    assert "Debug" not in error.message


def test_signatures_in_urls_are_not_shown() -> None:
    """A URL in an error loses its query, where Azure's tokens are."""
    text = "something odd at https://a.blob.core.windows.net/box/x?sv=2021&sig=hush in 3 ms"
    error = understood(GenericError(text), PLACE, "read a", writing=False).error

    assert "something odd" in error.message
    assert "hush" not in error.message


# --- spool ---


def test_small_objects_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record touches no disk, even where there is none."""
    monkeypatch.setenv("TMPDIR", "/nowhere")
    spooled = SpooledObject()
    spooled.write(b"ab", memoryview(b"cd"))

    assert (bytes(spooled.content()), spooled.size) == (b"abcd", 4)


def test_large_objects_go_to_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pack waits in a file that vanishes with its process, whatever happens."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    spooled = SpooledObject()
    for part in range(5):
        spooled.write(bytes([part]) * 700_000)

    assert list(tmp_path.iterdir()) == []
    assert bytes(spooled.content()) == b"".join(bytes([part]) * 700_000 for part in range(5))
    spooled.discard()
    spooled.discard()


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, StorageFull), (errno.EROFS, StorageFailed)])
def test_a_full_spool_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, error: type[PerdureError]
) -> None:
    """Lack of room where objects wait is not blamed on the pool: the message names the directory."""

    def refusing(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    spooled = SpooledObject()

    with pytest.raises(error, match=str(tmp_path)):
        spooled.write(bytes(2 << 20))


# --- ranges ---


@given(st.lists(st.tuples(st.integers(0, 100 << 20), st.integers(0, 20 << 20)), max_size=30))
def test_every_range_lies_in_one_span(ranges: list[tuple[int, int]]) -> None:
    """Joined requests hold every range that is not empty exactly once, and none joins ranges beyond its limit."""
    spans = spans_of(ranges)

    assert sorted(n for span in spans for n in span.numbers) == [n for n, (_, length) in enumerate(ranges) if length]
    for span in spans:
        inside = [ranges[number] for number in span.numbers]
        assert span.start == min(offset for offset, _ in inside)
        assert span.end == max(offset + length for offset, length in inside)
        assert len(inside) == 1 or span.end - span.start <= 16 << 20
