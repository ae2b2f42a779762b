"""Checking a recovered directory before any server touches it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from perdure.workloads.contract import Verification
from perdure.workloads.postgresql.checksums import bad_pages
from perdure.workloads.postgresql.layout import PAGE
from perdure.workloads.postgresql.lsn import parse_lsn
from perdure.workloads.postgresql.programs import find_programs, owner_of
from perdure.workloads.postgresql.provenance import read_provenance
from perdure.workloads.postgresql.scanning import relation_of

__all__ = ["verify_directory"]

_SEGMENT_PAGES = 131072
_PIECE = 4 << 20
_SHOWN = 20


def verify_directory(directory: Path, *, thorough: bool) -> Verification:
    """Check that every file of the manifest is there and whole; thoroughly: also pages and WAL.

    ``pg_verifybackup`` is used when the programs are on this machine.
    """
    manifest = json.loads((directory / "backup_manifest").read_text(encoding="utf-8"))
    problems = list(_missing(directory, manifest))
    means = "the sizes of its files"
    if thorough:
        start = parse_lsn(manifest["WAL-Ranges"][0]["Start-LSN"])
        problems += _wrong_pages(directory, manifest, start)
        means = "the checksums of its pages"
        origin = read_provenance(directory)
        programs = find_programs(origin.major, origin.programs)
        if programs is not None and programs.has("pg_verifybackup"):
            done = programs.run("pg_verifybackup", [str(directory)], owner=owner_of(directory))
            means = "pg_verifybackup and the checksums of its pages"
            if done.returncode:
                problems += [line for line in (done.stderr + done.stdout).splitlines() if line][:_SHOWN]
    return Verification(not problems, means, tuple(problems[:_SHOWN]))


def _missing(directory: Path, manifest: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    for entry in manifest["Files"]:
        path = directory / str(entry["Path"])
        if not path.is_file():
            yield f"{entry['Path']} is missing"
        elif path.stat().st_size != entry["Size"]:
            yield f"{entry['Path']} has {path.stat().st_size} bytes, not {entry['Size']}"


def _wrong_pages(directory: Path, manifest: dict[str, list[dict[str, object]]], start: int) -> Iterator[str]:
    """Pages that replay does not mend and whose checksum is wrong; nothing where pages have no checksums.

    Where a page without a checksum is legal, its checksum field is zero.
    """
    for entry in manifest["Files"]:
        name = str(entry["Path"])
        identity = relation_of(name)
        if identity is None:
            continue
        first = identity.segment * _SEGMENT_PAGES
        with (directory / name).open("rb") as file:
            at = 0
            while content := file.read(_PIECE):
                whole = len(content) // PAGE * PAGE
                for row in bad_pages(content[:whole], first + at // PAGE, start).tolist():
                    yield f"page {first + at // PAGE + row} of {name} has a wrong checksum"
                at += len(content)
