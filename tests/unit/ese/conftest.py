"""A maker of logs that the tests of this folder share."""

from __future__ import annotations

import pytest

from perdure.testing.ese_logs import EXAMPLE_BEGINNING, LogMaker, attach_entry, stream_signature


@pytest.fixture
def maker() -> LogMaker:
    """Makes logs of one stream, to which one database is attached."""
    database = attach_entry(1, stream_signature(0xDB, EXAMPLE_BEGINNING), "D:\\mail\\mailbox.edb")
    return LogMaker(stream_signature(0xC0FFEE, EXAMPLE_BEGINNING), attached=database)
