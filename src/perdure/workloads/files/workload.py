"""The folder workload."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from perdure.model.entries import Entry
from perdure.model.errors import SourceUnusable
from perdure.model.points import DataSource
from perdure.workloads.contract import Capabilities, ContentSink, FolderScan, ListingSource, WorkloadInfo
from perdure.workloads.files.notes import reason
from perdure.workloads.files.patterns import Patterns
from perdure.workloads.files.scan import OpenFile, Walk, open_for_reading

__all__ = ["FilesWorkload"]


class FilesWorkload:
    """A tree of files.

    Options of a data source: ``exclude`` and ``include`` (gitignore-style patterns relative to the root), and
    ``one-file-system`` (``["no"]`` to walk into what is mounted below the root).

    Args:
        clock: The present time in nanoseconds since 1970 UTC; a file that changed just before it is not trusted.
        open_file: How files are opened.
    """

    kind = "files"
    capabilities = Capabilities(
        log=False,
        items=True,
        why_not={"log": "a folder has no transaction log, so there are no points between two scans"},
    )

    def __init__(self, clock: Callable[[], int] = time.time_ns, open_file: OpenFile = open_for_reading) -> None:
        self._clock, self._open_file = clock, open_file

    def discover(self, location: str) -> WorkloadInfo:
        """Look at a folder without changing anything.

        Raises:
            SourceUnusable: It is missing, not a directory, or cannot be read.
        """
        path = os.path.abspath(location)  # noqa: PTH100 - the person's own links stay as written
        root = _open_root(path)
        try:
            count = len(os.listdir(root))  # noqa: PTH208 - pathlib cannot list a descriptor
        finally:
            os.close(root)
        name = Path(path).name or "root"
        return WorkloadInfo(path, f"folder with {count:,} {'entry' if count == 1 else 'entries'} at its top", name)

    def scan(
        self,
        source: DataSource,
        sink: ContentSink,
        previous: tuple[Entry, ListingSource] | None,
        *,
        check_content: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> FolderScan:
        """Walk the tree and store what is new; see :class:`perdure.workloads.contract.FolderWorkload`.

        Raises:
            SourceUnusable: As :meth:`discover`.
            BadInput: A pattern cannot be read.
        """
        options = source.options
        walk = Walk(
            sink,
            previous,
            Patterns(options.get("exclude", ()), options.get("include", ())),
            check_content=check_content,
            one_file_system=options.get("one-file-system", ["yes"]) != ["no"],
            progress=progress,
            clock=self._clock,
            open_file=self._open_file,
        )
        return walk.run(_open_root(source.location))


def _open_root(location: str) -> int:
    """Open the root, following symbolic links: the person named it. Listing it proves that it is readable."""
    try:
        root = os.open(location, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SourceUnusable(
            f"the folder {location} does not exist, so it cannot be protected; earlier points stay recoverable",
            code="source-missing",
            hint="check the path, and that its file system is mounted",
        ) from error
    except NotADirectoryError as error:
        raise SourceUnusable(
            f"{location} is not a folder", code="source-not-a-folder", hint="protect the folder that holds it"
        ) from error
    except OSError as error:
        raise SourceUnusable(
            f"the folder {location} cannot be read: {reason(error)}",
            code="source-unreadable",
            hint="run perdure as a user who may read it",
        ) from error
    return root
