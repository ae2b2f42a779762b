"""Real ESE databases for tests, where someone has put them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

__all__ = ["SAMPLES_MISSING", "sample_files", "unpacked"]

VARIABLE = "PERDURE_ESE_SAMPLES"
"""Names the folder with the ``.edb.gz`` files."""

SAMPLES_MISSING = f"no real ESE databases: {VARIABLE} is not set, and no shared/testdata/ese lies beside the project"


def sample_files() -> list[Path]:
    """The packed samples: of the folder that the variable names, else of ``shared/testdata/ese`` beside the project."""
    named = os.environ.get(VARIABLE)
    if named:
        return sorted(Path(named).glob("*.edb.gz"))
    for above in Path(__file__).resolve().parents:
        found = sorted((above / "shared" / "testdata" / "ese").glob("*.edb.gz"))
        if found:
            return found
    return []


def unpacked(sample: Path, folder: Path) -> Path:
    """A sample as the engine left it, in a folder."""
    target = folder / sample.name.removesuffix(".gz")
    target.write_bytes(gzip.decompress(sample.read_bytes()))
    return target
