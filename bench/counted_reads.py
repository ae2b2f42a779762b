"""Run a perdure command in this process and write how many bytes it read: ``counted_reads.py REPORT ARGUMENT…``.

Counted is what was asked of the operating system, whether or not it had it in memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

from perdure.cli import app


def read_bytes() -> int:
    """Bytes that this process has read so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def main() -> int:
    report, *arguments = sys.argv[1:]
    before = read_bytes()
    status = app.run(arguments)
    Path(report).write_text(str(read_bytes() - before))
    return status


if __name__ == "__main__":
    sys.exit(main())
