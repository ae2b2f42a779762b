"""Folders: making file recovery points and checking them."""

from __future__ import annotations

import time

from perdure.model.errors import SourceUnusable
from perdure.model.listings import load_root, store_root
from perdure.model.points import PointKind, RecoveryPoint
from perdure.model.replica import ReplicaState
from perdure.protection.building import begin_capture, newest_tree
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected, folder_workload
from perdure.workloads.contract import FolderScan

__all__ = ["check_folder", "protect_folder"]


def protect_folder(
    protected: Protected, cause: str, progress: Progress = quiet, *, verb: str = "sync"
) -> RecoveryPoint:
    """Walk the folder and make a file recovery point.

    Raises:
        Refused: Another perdure process holds the source.
        SourceUnusable: The folder is gone; the replica's state then says so.
    """
    with protected.home.lock(protected.source.id, verb):
        point, _ = _walk(protected, cause, progress, check_content=False, only_if_changed=False)
    assert point is not None
    if protected.replica.state is not ReplicaState.OK:
        protected.note_state(ReplicaState.OK, cause)
    return point


def check_folder(protected: Protected, progress: Progress = quiet) -> tuple[RecoveryPoint | None, FolderScan]:
    """Read every file and compare it with the replica.

    What changed by the files' own metadata is stored first, so that whatever then still differs is a
    change that the metadata had hidden.

    Returns:
        The point that repaired the replica, if anything differed, and the scan that read everything.
    """
    with protected.home.lock(protected.source.id, "check"):
        _walk(protected, "consistency check", progress, check_content=False, only_if_changed=True)
        protected.note_state(ReplicaState.VERIFYING, "consistency check")
        try:
            repair, scan = _walk(
                protected, "consistency check repaired files", progress, check_content=True, only_if_changed=True
            )
        except BaseException as error:
            protected.note_state(ReplicaState.INCONSISTENT, f"the consistency check did not finish: {error}")
            raise
        outcome = "found no difference" if repair is None else f"repaired {scan.changed} bytes of files"
        protected.note_state(ReplicaState.OK, f"consistency check {outcome}")
    return repair, scan


def _walk(
    protected: Protected, cause: str, progress: Progress, *, check_content: bool, only_if_changed: bool
) -> tuple[RecoveryPoint | None, FolderScan]:
    vault, workload = protected.vault, folder_workload(protected)
    newest = newest_tree(vault.points(protected.source.id))
    previous = (load_root(newest.tree, vault), vault) if newest is not None and newest.tree is not None else None
    capture = begin_capture(vault, protected.source.id, newest, newest_tree)
    started_ns = time.time_ns()
    total = newest.size if newest is not None else 0
    try:
        scan = workload.scan(
            protected.source,
            capture,
            previous,
            check_content=check_content,
            progress=lambda done: progress("reading", done, total),
        )
        tree = store_root(scan.root, capture)
        if only_if_changed and newest is not None and newest.tree == tree:
            capture.abort()
            return None, scan
        draft = RecoveryPoint(
            number=0,
            source=protected.source.id,
            kind=PointKind.FILE,
            time_ns=started_ns,
            tree=tree,
            size=scan.size,
            changed=scan.changed,
            read=scan.read,
            cause=cause,
            notes=scan.notes,
            inconsistent_ns=protected.inconsistent_ns(newest),
        )
        return capture.commit(draft), scan
    except SourceUnusable as error:
        capture.abort()
        protected.note_state(ReplicaState.MISSING, error.message)
        raise
    except BaseException:
        capture.abort()
        raise
