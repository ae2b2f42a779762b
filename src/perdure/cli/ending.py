"""How the program ends once an object store was used.

obstore works in threads that Python did not start and cannot stop. One that is still letting go of a result while the
interpreter is taken down touches what no longer exists, and the process dies of SIGABRT or SIGSEGV after it has done
everything right (about one end in six of a program that ends while requests are under way, obstore 0.12.1; the
libraries beneath it know it: https://github.com/PyO3/pyo3-async-runtimes/issues/40). So such a process ends without
taking the interpreter down.
"""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import dataclass

__all__ = ["Ending"]


@dataclass(slots=True)
class Ending:
    """The exit status to end with; to be made before anything else registers what it does at exit."""

    status: int = 0

    def __post_init__(self) -> None:
        # What is registered first runs last: temporary files are gone and threads are joined by then.
        atexit.register(self._leave)

    def _leave(self) -> None:
        if "obstore" not in sys.modules:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            pass  # Whoever read our output went away: nobody is left to be told.
        os._exit(self.status)
