from pathlib import Path

import pytest

from perdure.testing.folder_tree import FolderTree


@pytest.fixture
def tree(tmp_path: Path) -> FolderTree:
    return FolderTree(tmp_path)
