"""Verification of files and folders as an administrator has them: databases with their logs and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perdure.ese.chain import Chain, check_checkpoint, check_database, join_logs
from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged, EseUnsupported, NotAnEseFile
from perdure.ese.findings import Finding, Severity, worst_of
from perdure.ese.headers.checkpoint import CheckpointHeader, read_checkpoint
from perdure.ese.headers.database import DatabaseHeader
from perdure.ese.headers.kinds import FileKind, kind_by_content, kind_by_name
from perdure.ese.logs.files import Log, log_name, read_logs
from perdure.ese.structure import verify_structure
from perdure.ese.structures import Signature
from perdure.ese.verification import DatabaseReport, copies_findings, verify_database

__all__ = ["StreamReport", "VerificationReport", "find_files", "verify_files"]

_HEAD = (1 << 16) + 4096

Progress = Callable[[str, int, int], None]
"""Is called with the file at work, the bytes read since the last call, and all bytes that will be read."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The logs of one stream in one folder.

    Args:
        folder: Where they lie.
        base: The first three characters of their names.
        signature: Identity of the stream.
        generations: First and last generation, ``None`` if none can be told.
        logs: How many files.
        segments: Segments that hold records.
        records: Records in them.
        bytes: Bytes of all files.
    """

    folder: Path
    base: str
    signature: Signature
    generations: tuple[int, int] | None
    logs: int
    segments: int
    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What a verification found.

    Args:
        databases: One for every database.
        streams: One for the logs of every stream in every folder.
        others: Other files of the engine and what they are, and files that are none of the engine's.
        findings: Everything that is wrong or worth knowing.
    """

    databases: tuple[DatabaseReport, ...]
    streams: tuple[StreamReport, ...]
    others: tuple[tuple[Path, str], ...]
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Severity:
        """The worst of all findings; a note if there are none."""
        return worst_of(self.findings)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are meant: those named, and all in the folders named and below them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(below for below in path.rglob("*") if below.is_file())
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def verify_files(
    paths: Sequence[Path], *, trees: bool = False, progress: Progress = lambda _file, _done, _total: None
) -> VerificationReport:
    """Verify databases, logs and checkpoints, and that they belong together.

    A folder is taken to be complete: logs that its databases need must be in it, or in another path that is given. For
    a database that is named alone, missing logs are only noted.

    Args:
        paths: Files and folders.
        trees: Also check the structure of every database, see :func:`~perdure.ese.structure.verify_structure`.
        progress: Is told how far it is.

    Raises:
        NotAnEseFile: A file that was named is none of the engine's.
    """
    named = {path for path in paths if not path.is_dir()}
    run = _Verification(trees, progress, logs_expected=any(path.is_dir() for path in paths))
    for path in find_files(paths):
        run.take(path, named=path in named)
    return run.result()


@dataclass(slots=True)
class _Verification:
    trees: bool
    progress: Progress
    logs_expected: bool = field(kw_only=True)
    databases: list[Path] = field(default_factory=list)
    logs: dict[tuple[Path, str], list[Path]] = field(default_factory=dict)
    checkpoints: list[Path] = field(default_factory=list)
    others: list[tuple[Path, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def take(self, path: Path, *, named: bool) -> None:
        """Decide what a file is."""
        with path.open("rb") as opened:
            head = opened.read(_HEAD)
        by_name, by_content = kind_by_name(path.name), kind_by_content(head)
        if by_name in (FileKind.RESERVE_LOG, FileKind.UNFINISHED_LOG):
            self.others.append((path, f"{by_name.value}: holds no records, and is not needed"))
            return
        kind = by_content or by_name
        if by_content is None and by_name is FileKind.LOG and not named and not log_name(path.name).base:
            kind = None  # any program may call a text file setup.log; the engine's own names have a form
        if kind is FileKind.DATABASE:
            self.databases.append(path)
        elif kind is FileKind.LOG:
            self.logs.setdefault((path.parent, log_name(path.name).base or path.stem.upper()), []).append(path)
        elif kind is FileKind.CHECKPOINT:
            self.checkpoints.append(path)
        elif kind is FileKind.FLUSH_MAP:
            self.others.append((path, f"{kind.value}: the engine can do without it, so it is not verified"))
        elif kind is not None:
            self._unverified(path, kind)
        elif named:
            raise NotAnEseFile(
                f"{path} is no database, log, checkpoint or flush map of the ESE engine",
                hint="name an .edb, .log or .chk file, or a folder that holds them",
            )
        else:
            self.others.append((path, "not a file of the engine"))

    def _unverified(self, path: Path, kind: FileKind) -> None:
        self.findings.append(
            Finding(
                code="ese-not-verified",
                file=path.name,
                place="",
                what=f"it is a {kind.value}, which perdure does not verify",
                severity=Severity.UNVERIFIED,
            )
        )

    def result(self) -> VerificationReport:
        files = [*self.databases, *(path for paths in self.logs.values() for path in paths)]
        total = sum(path.stat().st_size for path in files)
        reports = [self._database(path, total) for path in self.databases]
        signatures = {report.header.log_signature for report in reports if report.header is not None}
        chains, streams = [], []
        for (folder, base), paths in self.logs.items():
            chain, stream = self._stream(folder, base, paths, signatures, total)
            chains.append((folder, base, chain))
            streams.append(stream)
        self._join_databases(reports, [chain for _, _, chain in chains])
        for path in self.checkpoints:
            self._checkpoint(path, chains)
        return VerificationReport(tuple(reports), tuple(streams), tuple(self.others), tuple(self.findings))

    def _database(self, path: Path, total: int) -> DatabaseReport:
        try:
            report = verify_database(path, lambda done: self.progress(path.name, done, total))
        except (NotAnEseFile, EseUnsupported) as error:
            # Only the name says that it is a database, or nobody can read its format: nothing was verified.
            finding = Finding(error.code, path.name, "header", error.message.removeprefix(f"{path.name} "))
            report = DatabaseReport(path.name, None, 0, 0, 0, 0, (finding,))
        self.findings += report.findings
        if self.trees and report.header is not None:
            self.findings += self._structure(path, report.header)
        return report

    def _structure(self, path: Path, header: DatabaseHeader) -> list[Finding]:
        if not header.clean:
            what = f"its trees were not checked: in {header.state_text} its pages may contradict each other"
            finding = Finding(
                code="ese-not-verified", file=path.name, place="", what=what, severity=Severity.UNVERIFIED
            )
            return [finding]
        with Database(path) as database:
            return verify_structure(database)

    def _stream(
        self, folder: Path, base: str, paths: list[Path], signatures: set[Signature], total: int
    ) -> tuple[Chain, StreamReport]:
        logs: list[Log] = []
        segments = records = size = 0
        for log in read_logs(paths):
            self.findings += log.findings
            segments += log.segments.count if log.segments is not None else 0
            records += len(log.records) if log.records is not None else 0
            size += log.size
            self.progress(log.file, log.size, total)
            logs.append(log.without_content())
        own = {log.header.signature for log in logs if log.header is not None}
        known = own & signatures
        chain = join_logs(logs, known.pop() if len(known) == 1 else None)
        self.findings += chain.findings
        generations = [log.generation for log in chain.logs if log.generation is not None]
        ends = (min(generations), max(generations)) if generations else None
        return chain, StreamReport(folder, base, chain.signature, ends, len(logs), segments, records, size)

    def _join_databases(self, reports: list[DatabaseReport], chains: list[Chain]) -> None:
        for report in reports:
            if report.header is None:
                continue
            own = next((chain for chain in chains if chain.signature == report.header.log_signature), None)
            self.findings += check_database(report.header, report.file, own, logs_expected=self.logs_expected)

    def _checkpoint(self, path: Path, chains: list[tuple[Path, str, Chain]]) -> None:
        try:
            header, copies = read_checkpoint(path.read_bytes(), path.name)
        except EseDamaged as error:
            what = error.message.removeprefix(f"{path.name}: ")
            self.findings.append(Finding(error.code, path.name, "header", what))
            return
        self.others.append((path, f"checkpoint at {header.checkpoint}"))
        self.findings += copies_findings(copies, path.name)
        self.findings += check_checkpoint(header, path.name, _beside(path, header, chains))


def _beside(path: Path, header: CheckpointHeader, chains: list[tuple[Path, str, Chain]]) -> Chain | None:
    """The chain that a checkpoint is for: of its own name in its own folder, else of its stream."""
    for folder, base, chain in chains:
        if folder == path.parent and base == path.stem[:3].upper():
            return chain
    return next((chain for _, _, chain in chains if chain.signature == header.signature), None)
