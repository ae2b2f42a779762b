"""The ``files`` workload: folder trees with everything that Linux keeps about a file."""

from perdure.model.listings import load_root, store_root
from perdure.workloads.files.restore import RestoreReport, restore_tree
from perdure.workloads.files.tree import browse, find, iterate, list_directory
from perdure.workloads.files.workload import FilesWorkload

__all__ = [
    "FilesWorkload",
    "RestoreReport",
    "browse",
    "find",
    "iterate",
    "list_directory",
    "load_root",
    "restore_tree",
    "store_root",
]
