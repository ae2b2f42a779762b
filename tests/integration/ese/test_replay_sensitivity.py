"""What replay makes of logs that were tampered with: it notices, or no harm is done, and it is never silently wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from perdure.ese.logs.files import read_logs
from perdure.ese.replay.replaying import replay
from perdure.model.errors import PerdureError
from perdure.testing.ese_logs import LogMaker, segment_checksums
from perdure.testing.information_store.clock import SteppingClock
from perdure.testing.information_store.journal import differences, read_rows
from perdure.testing.information_store.layout import LogLayout, StorePlan
from perdure.testing.information_store.store import InformationStore, StoreOptions

SMALLEST = 1


@dataclass(frozen=True)
class Stream:
    """A stream that begins with its database, and what that holds in the end.

    Args:
        logs: Its logs.
        records: The records of each.
        rows: The rows that replay of all of them gives.
        open_transactions: Where the transactions began that do not end.
    """

    logs: tuple[Path, ...]
    records: tuple[tuple[bytes, ...], ...]
    rows: dict[str, dict[str, dict[str, int | str | bool]]]
    open_transactions: tuple[str, ...]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """A store worked and was killed."""
    folder = tmp_path_factory.mktemp("stream")
    plan = StorePlan(page_size=32768, layout=LogLayout.APART, seed=3)
    store = InformationStore(folder / "store", plan, clock=SteppingClock(), options=StoreOptions(write_chance=0.3))
    hosted = store.add_database("M", mailboxes=2)
    store.work(150)
    assert hosted.engine is not None
    hosted.engine.roll()
    store.work(60)
    store.crash()
    logs = sorted(hosted.log_folder.glob("*.log"), key=lambda path: path.stem.ljust(11, "~"))
    read = [log.records for log in read_logs(logs)]
    records = tuple(tuple(record.content for record in found) for found in read if found is not None)
    report = replay(logs, folder / "whole.edb")
    opened = tuple(str(transaction.begun) for transaction in report.open_transactions)
    return Stream(tuple(logs), records, read_rows(report.output), opened)


def written(stream: Stream, contents: Sequence[Sequence[bytes]], folder: Path) -> list[Path]:
    """Logs that hold these records, each sound and joined to the one before."""
    paths: list[Path] = []
    before = b""
    for log, records in zip(read_logs(stream.logs), contents, strict=True):
        assert log.header is not None
        raw = log.path.read_bytes()
        maker = LogMaker(log.header.signature.raw, sectors=256, attached=raw[671 : 671 + 2048])
        content = maker.log(
            records,
            log.header.generation,
            log.header.created.raw,
            previous_created=log.header.previous_created.raw,
            previous_segments=segment_checksums(before) if before else 0,
        )
        paths.append(folder / log.path.name)
        paths[-1].write_bytes(content)
        before = content
    return paths


def verdict(stream: Stream, logs: list[Path], folder: Path) -> str:
    """What became of a replay: refused, harmless, told, or silently wrong."""
    output = folder / "result.edb"
    output.unlink(missing_ok=True)
    try:
        report = replay(logs, output, memory=SMALLEST)
    except PerdureError:
        return "refused"
    if not differences(stream.rows, read_rows(output)):
        return "harmless"
    if report.findings or tuple(str(one.begun) for one in report.open_transactions) != stream.open_transactions:
        return "told"
    return "silently wrong"


def tampered(stream: Stream, chance: Random, how: str) -> tuple[list[list[bytes]], str]:
    """The records of all logs with one of them dropped, twice, or behind the next; and which."""
    contents = [list(records) for records in stream.records]
    which = chance.choices(range(len(contents)), [len(records) - 1 for records in contents])[0]
    records = contents[which]
    index = chance.randrange(len(records) - 1)
    kind = records[index][0]
    if how == "drop":
        del records[index]
    elif how == "duplicate":
        records.insert(index, records[index])
    else:
        records[index], records[index + 1] = records[index + 1], records[index]
    return contents, f"record {index} of type {kind} in log {which + 1}"


def attempts(stream: Stream, folder: Path, how: str, seeds: range) -> Counter[str]:
    """Verdicts on many tampered streams."""
    found: Counter[str] = Counter()
    for seed in seeds:
        contents, what = tampered(stream, Random(seed), how)
        outcome = verdict(stream, written(stream, contents, folder), folder)
        assert outcome != "silently wrong", f"{how} {what} (seed {seed})"
        found[outcome] += 1
    return found


def test_the_logs_written_again_give_the_same(stream: Stream, tmp_path: Path) -> None:
    """Records that nobody touched, in logs written anew, give the same rows."""
    assert verdict(stream, written(stream, stream.records, tmp_path), tmp_path) == "harmless"


@pytest.mark.xfail(
    strict=False, reason="open: too few of the reordered records of this store are noticed to prove anything"
)
@pytest.mark.parametrize("how", ["drop", "duplicate", "reorder"])
def test_tampered_records(stream: Stream, tmp_path: Path, how: str) -> None:
    """A record that is missing, there twice or in another's place is noticed, or does no harm."""
    found = attempts(stream, tmp_path, how, range(15))
    assert found["refused"] > 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["drop", "duplicate", "reorder"])
def test_many_tampered_records(stream: Stream, tmp_path: Path, how: str) -> None:
    """The same for hundreds of records."""
    attempts(stream, tmp_path, how, range(1000, 1060))


def test_flipped_bits_in_a_log(stream: Stream, tmp_path: Path) -> None:
    """A flipped bit anywhere in a log is noticed, or its checksum corrects it: then the rows are right."""
    chance = Random(11)
    outcomes: Counter[str] = Counter()
    for _ in range(60):
        paths = []
        for log in stream.logs:
            paths.append(tmp_path / log.name)
            paths[-1].write_bytes(log.read_bytes())
        victim = chance.choice(paths)
        content = bytearray(victim.read_bytes())
        used = max(at for at in range(0, len(content), 4096) if any(content[at : at + 4096]))
        at = chance.randrange(8 * min(used + 4096, len(content)))
        content[at >> 3] ^= 1 << (at & 7)
        victim.write_bytes(content)
        outcomes[verdict(stream, paths, tmp_path)] += 1
    assert not outcomes["silently wrong"]
    assert outcomes["refused"] > 20
