"""The tables that a copy relies on: which id is which, and which places of log are joined."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.extents import chunk_table
from perdure.model.logs import LogSpan
from perdure.model.points import StreamRef
from perdure.model.positions import Position
from perdure.repository.copying_log import Coverage
from perdure.repository.copying_translation import IdTable, Translation, no_ids, unique_ids

IDS = st.tuples(st.integers(0, 3), st.integers(0, 5)).map(lambda pair: bytes([pair[0]]) * 8 + bytes([pair[1]]) * 24)
"""Ids of which many share their first 8 bytes."""

PAIRS = st.dictionaries(IDS, st.binary(min_size=32, max_size=32), max_size=24)


@given(st.lists(st.tuples(st.booleans(), PAIRS), max_size=8), st.lists(IDS, max_size=20))
def test_a_table_finds_exactly_what_was_added(steps: list[tuple[bool, dict[bytes, bytes]]], asked: list[bytes]) -> None:
    """Whatever was added in whatever way is found, what was known first stays, and nothing else is found."""
    table, model = IdTable(), dict[bytes, bytes]()
    for at_once, pairs in steps:
        fresh = {key: value for key, value in pairs.items() if key not in model}
        if at_once:
            added = table.add(chunk_table(pairs), chunk_table(pairs.values()))
            assert sorted(row.tobytes() for row in added) == sorted(fresh)
        else:
            for key, value in fresh.items():
                table.put(key, value)
        model.update(fresh)

    assert [table.get(key) for key in asked] == [model.get(key) for key in asked]
    values, known = table.find(chunk_table(asked))
    assert known.tolist() == [key in model for key in asked]
    assert [row.tobytes() for row in values[known]] == [model[key] for key in asked if key in model]
    assert len(table) == len(model)


@given(st.lists(IDS, max_size=40))
def test_unique_ids_keep_their_order(ids: list[bytes]) -> None:
    """Repetitions go; nothing else goes, and what stays is in the order of first appearance."""
    found = [row.tobytes() for row in unique_ids(chunk_table(ids))]
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(ids))
    assert len({key[:8] for key in ids}) < len(set(ids)) or len(found) == len(set(ids))


def test_a_large_table_keeps_few_runs() -> None:
    """A million ids that come in small lots stay in a few runs, so that a look-up stays cheap."""
    rng = np.random.default_rng(5)
    table = IdTable()
    lots = [rng.integers(0, 256, (1000, 32), dtype=np.uint8) for _ in range(200)]
    for lot in lots:
        table.add(lot, lot[:, ::-1])

    assert len(table) == 200_000
    assert len(table._runs) <= 12
    values, known = table.find(lots[77])
    assert known.all()
    assert np.array_equal(values, lots[77][:, ::-1])
    assert not table.find(rng.integers(0, 256, (1000, 32), dtype=np.uint8))[1].any()


def test_streams_are_known_as_a_whole() -> None:
    """A stream of several chunks is not known because its chunks are known, each as a stream of its own."""
    one, two = bytes(32), bytes([1]) * 32
    known = Translation()
    known.note_stream(StreamRef((one,), 5), StreamRef((two,), 5))
    known.note_stream(StreamRef((two,), 5), StreamRef((one,), 5))

    assert known.stream(StreamRef((one,), 5)) == StreamRef((two,), 5)
    assert known.stream(StreamRef((one, two), 10)) is None
    known.note_stream(StreamRef((one, two), 10), StreamRef((two, two), 10))
    assert known.stream(StreamRef((one, two), 10)) == StreamRef((two, two), 10)
    assert not known.data.find(no_ids())[1].any()


SPANS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 20), st.integers(1, 8)).map(
        lambda it: LogSpan(it[0], it[1], it[1] + it[2], 0, "")
    ),
    max_size=10,
)


def places(spans: list[LogSpan]) -> set[tuple[int, int]]:
    return {(span.generation, place) for span in spans for place in range(span.after_place + 1, span.last_place + 1)}


@given(SPANS, SPANS)
def test_coverage_is_what_counting_every_place_says(spans: list[LogSpan], others: list[LogSpan]) -> None:
    """A span is covered when every single place of it is in a segment; the last common place is in both."""
    coverage, there = Coverage(spans), places(spans)

    for span in others:
        assert coverage.covers(span) == (places([span]) <= there)
    common = there & places(others)
    assert coverage.last_common(Coverage(others)) == (Position(*max(common)) if common else None)
