"""The workload contract: what a kind of data source must offer.

There are two shapes. An *image workload* (a database) is a set of files that change by pages, joined
by a transaction log: it opens a :class:`Session` on the live source. A *folder workload* is a tree
of files: it walks it (:class:`FolderWorkload`). A workload never sees a pool; it gets small protocols
(:class:`ContentSink`, :class:`ListingSource`) for the little it needs of one.

What a workload cannot do it says in its :class:`Capabilities`; callers refuse with ``why_not``.
"""

from __future__ import annotations

from perdure.workloads.contract.description import (
    AdvisingWorkload,
    Capabilities,
    Configured,
    ConfiguredWorkload,
    WorkloadInfo,
)
from perdure.workloads.contract.folders import ContentSink, FolderScan, FolderWorkload, ListingSource
from perdure.workloads.contract.images import BaseImage, Image, ImageReader, MovingImage
from perdure.workloads.contract.recovery import (
    Arranged,
    DirectoryWorkload,
    DrilledWorkload,
    ImageWorkload,
    LocatingWorkload,
    LogReader,
    RestoredItem,
    SpreadingWorkload,
    StartedWorkload,
    Verification,
)
from perdure.workloads.contract.sessions import BackupSession, LayoutSession, RunningSession, Session

__all__ = [
    "AdvisingWorkload",
    "Arranged",
    "BackupSession",
    "BaseImage",
    "Capabilities",
    "Configured",
    "ConfiguredWorkload",
    "ContentSink",
    "DirectoryWorkload",
    "DrilledWorkload",
    "FolderScan",
    "FolderWorkload",
    "Image",
    "ImageReader",
    "ImageWorkload",
    "LayoutSession",
    "ListingSource",
    "LocatingWorkload",
    "LogReader",
    "MovingImage",
    "RestoredItem",
    "RunningSession",
    "Session",
    "SpreadingWorkload",
    "StartedWorkload",
    "Verification",
    "WorkloadInfo",
]
