"""Starts one command, waits for it, and writes what it cost: ``python measure.py REPORT COMMAND …``.

It is a process of its own because a child's peak memory, as the kernel reports it, begins with the peak of
whoever started it; this one is small. SIGTERM is passed on. It exits with the command's status.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

PR_SET_PDEATHSIG = 1


def main() -> int:
    report, command = Path(sys.argv[1]), sys.argv[2:]
    begun = monotonic()
    # If this process is killed, the command must not go on alone.
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(command, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))  # noqa: PLW1509 (one thread)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(process.pid, signal.SIGTERM))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = monotonic() - begun
    cost = {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024}
    report.write_text(json.dumps(cost))
    return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
