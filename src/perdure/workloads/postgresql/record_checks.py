"""The checksums of WAL records, which are verified before anything is acknowledged to the server.

A server may remove its WAL once it is acknowledged. What is left then must not be what was damaged on the way.
"""

from __future__ import annotations

import google_crc32c

from perdure.model.errors import Damaged
from perdure.workloads.postgresql.lsn import format_lsn
from perdure.workloads.postgresql.records import RECORD_HEADER, Records

__all__ = ["verify_checks"]

_CHECK_AT = 20
"""Where a record has its CRC-32C, at the end of its header: of what follows the header, then of what precedes it."""


def verify_checks(records: Records) -> None:
    """Compare the checksum of every record with its content.

    Raises:
        Damaged: One differs (code ``damaged-wal``).
    """
    content = records.content.tobytes()
    begins, ends = records.offsets.tolist(), (records.offsets + records.lengths).tolist()
    value, extend = google_crc32c.value, google_crc32c.extend
    for row, (begin, end, check) in enumerate(zip(begins, ends, records.checks.tolist(), strict=True)):
        if extend(value(content[begin + RECORD_HEADER : end]), content[begin : begin + _CHECK_AT]) != check:
            raise Damaged(
                f"the WAL record at {format_lsn(int(records.starts[row]))} has a wrong checksum",
                code="damaged-wal",
                hint="check the server's disk and log; the replica is left as it is",
            )
