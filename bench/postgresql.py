"""PostgreSQL clusters: perdure against Debian's pgBackRest and Barman (on 15), and against PostgreSQL 18's own tools.

    python bench/postgresql.py                  # 0.1 GiB, about two minutes
    python bench/postgresql.py --size 4         # GiB of each cluster, as the targets want it; needs 12 times that
    python bench/postgresql.py --only log       # one part: copies, log

All tools work on the same cluster, one after another, under a light load. pgBackRest and Barman are left out where they
are not installed (``apt install pgbackrest barman``). Everything is in one folder below TMPDIR and removed in the end.
Nothing is written elsewhere; with --json FILE the figures go there too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools import Cost, Perdure, run, size_of

from perdure.testing.postgres_server import PostgresServer, binaries, owner
from perdure.workloads.postgresql.lsn import format_lsn, parse_lsn

GIB = 1 << 30
ROOM = 12
"""Times the cluster's size that is needed on the disk."""

LIGHT_TPS = 20
LAG_TPS = 1000
SHIP_EVERY = "40ms"
ROWS_PER_PAGE = 13

WITH_IO = """
import os, sys
from pathlib import Path
from perdure.cli.app import main
try:
    main()
finally:
    Path(os.environ["IO_REPORT"]).write_text(Path("/proc/self/io").read_text())
"""
"""Runs perdure and reports what it read, by the kernel's count: files of every kind, Python's own among them."""


@dataclass
class Bench:
    """Where it runs, how large the clusters are, and what was found.

    Args:
        folder: All files are below it; the servers' user may reach it.
        gib: Size of each cluster.
    """

    folder: Path
    gib: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, work: str, tool: str, cost: Cost, **figures: float) -> None:
        """Note a run, and show it."""
        self.rows.append({"work": work, "tool": tool, **asdict(cost), "answer": None, **figures})
        more = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        print(f"  {work}: {tool}: {cost.seconds:.2f} s, {cost.cpu:.2f} s CPU  {more}", flush=True)

    def seconds(self, work: str, tool: str) -> float | None:
        """How long a tool took; ``None`` if it was not run."""
        return next((row["seconds"] for row in self.rows if (row["work"], row["tool"]) == (work, tool)), None)

    def figure(self, work: str, tool: str, name: str) -> float | None:
        return next((row.get(name) for row in self.rows if (row["work"], row["tool"]) == (work, tool)), None)


class Peer:
    """A tool that runs as the servers' user."""

    def __init__(self, bench: Bench, server: PostgresServer, name: str) -> None:
        self.bench, self.server = bench, server
        self.folder = bench.folder / f"{name}-{server.major}"
        self.folder.mkdir()
        give(self.folder)

    def run(self, *command: str | Path) -> Cost:
        """Run a command as the servers' user."""
        environment = {"PGUSER": "postgres", "PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "HOME": "/"}
        return run(self.bench.folder, [*as_owner(), *command], environment)


def as_owner() -> list[str]:
    """The words before a command that is to run as the servers' user."""
    known = owner()
    if not known:
        return []
    return ["setpriv", f"--reuid={known['user']}", f"--regid={known['group']}", "--clear-groups"]


def give(path: Path) -> None:
    """Make a file or folder the servers' user's."""
    if owner():
        os.chown(path, owner()["user"], owner()["group"])


# --- the cluster ---------------------------------------------------------------------------------


@contextmanager
def cluster(bench: Bench, major: int, **settings: str) -> Iterator[PostgresServer]:
    """A running cluster of the size that was asked for, whose content compresses to about half."""
    data = bench.folder / f"cluster-{major}"
    more = {"fsync": "on", "shared_buffers": "256MB", "max_wal_size": "4GB", "autovacuum": "off", **settings}
    with PostgresServer(major, data).initialize(**more) as server:
        server.start()
        rows = int(bench.gib * GIB / 8192 * ROWS_PER_PAGE)
        print(f"PostgreSQL {major}: making {bench.gib} GiB", flush=True)
        server.execute(
            "CREATE TABLE big (id bigint PRIMARY KEY, counter int NOT NULL DEFAULT 0, filler text NOT NULL)"
            " WITH (fillfactor = 90)",
            "CREATE TABLE small (id bigserial PRIMARY KEY, moment timestamptz DEFAULT now(), filler text)",
        )
        step = 200_000
        for first in range(1, rows + 1, step):
            server.execute(
                "INSERT INTO big SELECT g, 0, "
                + " || ".join(f"encode(sha512((g * {factor})::text::bytea), 'hex')" for factor in (1, 7, 11, 13))
                + f" FROM generate_series({first}, {min(rows, first + step - 1)}) g"
            )
        server.execute("VACUUM ANALYZE big", "CHECKPOINT")
        yield server
    shutil.rmtree(data, ignore_errors=True)


def change(server: PostgresServer, round_: int) -> None:
    """Change one row in every hundredth page, other pages each round."""
    server.execute(
        f"UPDATE big SET counter = counter + 1 WHERE id % {ROWS_PER_PAGE * 100} = {round_ * ROWS_PER_PAGE + 1}",
        "CHECKPOINT",
    )


@contextmanager
def load(bench: Bench, server: PostgresServer, tps: int) -> Iterator[None]:
    """So many small transactions a second meanwhile."""
    script = bench.folder / "load.sql"
    script.write_text("INSERT INTO small (filler) VALUES (repeat('x', 100));\n")
    script.chmod(0o644)
    command = [*as_owner(), str(server.bin / "pgbench"), "-n", "-f", str(script), "-R", str(tps), "-c", "4"]
    command += ["-T", "86400", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "postgres"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def data_size(server: PostgresServer) -> int:
    """Bytes of a cluster without its WAL."""
    return size_of(server.data) - size_of(server.data / "pg_wal")


# --- perdure -------------------------------------------------------------------------------------


class Protected:
    """perdure, protecting a cluster."""

    def __init__(self, bench: Bench, server: PostgresServer, part: str = "copies") -> None:
        self.bench, self.server = bench, server
        self.work = bench.folder / f"perdure-{server.major}-{part}"
        self.work.mkdir(mode=0o755)
        self.perdure = Perdure(self.work, "cluster")
        os.environ["PERDURE_PG_BIN"] = str(server.bin)

    def first(self) -> None:
        location = f"postgresql://postgres@127.0.0.1:{self.server.port}/postgres"
        cost = self.perdure.run("protect", location, "--pool", self.perdure.pool, "--as", "main")
        self.bench.add("first copy", f"perdure {self.server.major}", cost, stored=size_of(Path(self.perdure.pool)))

    def express(self, work: str) -> None:
        """An express full after the log was shipped, as it is while perdure watches."""
        self.perdure.run("sync", "main")
        before = size_of(Path(self.perdure.pool))
        report = self.work / "io"
        environment = {
            "PERDURE_HOME": str(self.perdure.home),
            "PERDURE_PASSPHRASE_FILE": str(self.perdure.passphrase_file),
            "IO_REPORT": str(report),
        }
        command: list[str | Path] = [sys.executable, "-c", WITH_IO, "express-full", "main", "--json"]
        cost = run(self.work, command, environment, answer=True)
        read = int(dict(line.split(": ") for line in report.read_text().splitlines())["rchar"])
        point, whole = cost.answer["point"], data_size(self.server)
        if "compared" in point["cause"]:
            raise RuntimeError(f"the changed pages should have been known: {point['cause']}")
        figures = {"pages_read_share": point["read"] / whole, "all_read_share": read / whole}
        stored = size_of(Path(self.perdure.pool)) - before
        self.bench.add(work, f"perdure {self.server.major}", cost, stored=stored, **figures)

    def recover(self, work: str, target: Path, *more: str) -> None:
        cost = self.perdure.run("recover", "main", "--to", "latest", "--target", target, "--verify", "none", *more)
        self.bench.add(work, f"perdure {self.server.major}", cost)


def damage(directory: Path) -> None:
    """Overwrite one page in a hundred of a recovered directory's large files."""
    for path in sorted((directory / "base").rglob("*")):
        if not path.is_file() or path.stat().st_size < 100 * 8192:
            continue
        with path.open("r+b") as file:
            for page in range(50, path.stat().st_size // 8192, 100):
                file.seek(page * 8192 + 4000)
                file.write(b"damaged!" * 16)


# --- copies: first, express full, recovery -------------------------------------------------------


def copies(bench: Bench) -> None:
    """First copy, express full after 1 % changed, recovery of the newest point, delta restore."""
    if binaries(15) is not None:
        on_15(bench)
    else:
        print("PostgreSQL 15 is not installed: pgBackRest and Barman are left out", flush=True)
    on_18(bench)


def on_15(bench: Bench) -> None:
    archive = {"archive_mode": "on", "archive_command": "true"} if shutil.which("pgbackrest") else {}
    with cluster(bench, 15, **archive) as server:
        ours = Protected(bench, server)
        with load(bench, server, LIGHT_TPS):
            ours.first()
            theirs = Pgbackrest(bench, server) if shutil.which("pgbackrest") else None
            if theirs is not None:
                theirs.first()
            barman = Barman(bench, server) if shutil.which("barman") else None
            if barman is not None:
                barman.first()
            change(server, 0)
            ours.express("express full")
            if theirs is not None:
                theirs.incremental("express full")
        recoveries(bench, ours, theirs, barman)


def recoveries(bench: Bench, ours: Protected, theirs: Pgbackrest | None, barman: Barman | None) -> None:
    """Of the newest point, and onto a directory of which 1 % is damaged."""
    for name, tool in (("perdure", ours), ("pgbackrest", theirs), ("barman", barman)):
        if tool is None:
            continue
        target = bench.folder / f"recovered-{name}"
        tool.recover("recovery", target)
        if not isinstance(tool, Barman):
            damage(target)
            tool.recover("delta restore", target, "--delta")
        shutil.rmtree(target)


class Pgbackrest(Peer):
    """Debian's pgBackRest: zstd, two processes, a repository in the same file system."""

    def __init__(self, bench: Bench, server: PostgresServer) -> None:
        super().__init__(bench, server, "pgbackrest")
        for name in ("repo", "log", "lock", "spool"):
            (self.folder / name).mkdir()
            give(self.folder / name)
        configuration = self.folder / "pgbackrest.conf"
        configuration.write_text(
            f"[global]\nrepo1-path={self.folder / 'repo'}\nlog-path={self.folder / 'log'}\n"
            f"lock-path={self.folder / 'lock'}\nspool-path={self.folder / 'spool'}\ncompress-type=zst\nprocess-max=2\n"
            f"start-fast=y\nlog-level-console=warn\nlog-level-file=off\n"
            f"[main]\npg1-path={server.data}\npg1-port={server.port}\npg1-socket-path={self.folder}\npg1-user=postgres\n"
        )
        self.configuration = configuration
        server.configure({"unix_socket_directories": str(self.folder)})
        server.configure({"archive_command": " ".join([*self._command(), "archive-push %p"])})
        server.restart()
        self.run(*self._command(), "stanza-create")

    def _command(self) -> list[str]:
        return ["pgbackrest", f"--config={self.configuration}", "--stanza=main"]

    def first(self) -> None:
        cost = self.run(*self._command(), "--type=full", "backup")
        self.bench.add("first copy", "pgbackrest", cost, stored=size_of(self.folder / "repo"))

    def incremental(self, work: str) -> None:
        before = size_of(self.folder / "repo")
        cost = self.run(*self._command(), "--type=incr", "backup")
        self.bench.add(work, "pgbackrest", cost, stored=size_of(self.folder / "repo") - before)

    def recover(self, work: str, target: Path, *more: str) -> None:
        target.mkdir(exist_ok=True, mode=0o700)
        give(target)
        cost = self.run(*self._command(), f"--pg1-path={target}", *more, "restore")
        self.bench.add(work, "pgbackrest", cost)


class Barman(Peer):
    """Debian's Barman, with its method that needs no ssh: pg_basebackup and streamed WAL."""

    def __init__(self, bench: Bench, server: PostgresServer) -> None:
        super().__init__(bench, server, "barman")
        self.configuration = self.folder / "barman.conf"
        user = subprocess.run([*as_owner(), "id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        address = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        self.configuration.write_text(
            f"[barman]\nbarman_user = {user}\nbarman_home = {self.folder}\nlog_file = {self.folder}/barman.log\n"
            f"barman_lock_directory = {self.folder}\n"
            f"[main]\ndescription = main\nconninfo = {address}\nstreaming_conninfo = {address}\n"
            f"backup_method = postgres\nstreaming_archiver = on\nslot_name = barman\ncreate_slot = auto\n"
            f"path_prefix = {server.bin}\nimmediate_checkpoint = true\n"
        )
        self._call("receive-wal", "--create-slot", "main")
        command = [*as_owner(), "barman", "-c", str(self.configuration), "receive-wal", "main"]
        self._receiver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not server.execute("SELECT count(*) FROM pg_stat_replication WHERE application_name ~ 'barman'")[0][0]:
            if time.monotonic() > deadline or self._receiver.poll() is not None:
                raise RuntimeError("barman receives no WAL")
            time.sleep(0.1)
        with suppress(RuntimeError):
            self._call("switch-wal", "--force", "--archive", "--archive-timeout", "60", "main")

    def _call(self, *arguments: str) -> Cost:
        return self.run("barman", "-c", self.configuration, *arguments)

    def first(self) -> None:
        try:
            cost = self._call("backup", "--wait", "main")
            self.bench.add("first copy", "barman", cost, stored=size_of(self.folder / "main"))
        finally:
            self._receiver.terminate()
            self._receiver.wait()

    def recover(self, work: str, target: Path) -> None:
        self.bench.add(work, "barman", self._call("recover", "main", "latest", str(target)))


def on_18(bench: Bench) -> None:
    with cluster(bench, 18) as server:
        ours = Protected(bench, server)
        peer = Peer(bench, server, "pg_basebackup")
        basebackup = server.bin / "pg_basebackup"
        whole, part = peer.folder / "whole", peer.folder / "part"
        with load(bench, server, LIGHT_TPS):
            ours.first()
            cost = peer.run(basebackup, "-D", whole, "-c", "fast")
            bench.add("first copy", "pg_basebackup", cost, stored=size_of(whole))
            change(server, 0)
            ours.express("express full")
            cost = peer.run(
                basebackup, "-D", part, "-c", "fast", "--incremental", whole / "backup_manifest", "--no-manifest"
            )
            bench.add("express full", "pg_basebackup", cost, stored=size_of(part))
        target = peer.folder / "combined"
        cost = peer.run(server.bin / "pg_combinebackup", "--no-manifest", "-o", target, whole, part)
        bench.add("recovery", "pg_combinebackup", cost)
        shutil.rmtree(peer.folder)
        target = bench.folder / "recovered"
        ours.recover("recovery", target)
        damage(target)
        ours.recover("delta restore", target, "--delta")
        shutil.rmtree(target)


# --- log -----------------------------------------------------------------------------------------


def log(bench: Bench) -> None:
    """A backlog of WAL, from records of small transactions, and the lag at 1,000 transactions a second."""
    small = Bench(bench.folder, min(bench.gib, 0.05), bench.rows)
    with cluster(small, 18, wal_keep_size="32GB", max_wal_size="16GB") as server:
        ours = Protected(small, server, "log")
        ours.perdure.run(
            "protect",
            f"postgresql://postgres@127.0.0.1:{server.port}/postgres",
            "--pool",
            ours.perdure.pool,
            "--as",
            "main",
        )
        backlog(bench, server, ours)
        lag(bench, server, ours)


def backlog(bench: Bench, server: PostgresServer, ours: Protected) -> None:
    peer = Peer(bench, server, "receivewal")
    receivewal = server.bin / "pg_receivewal"
    address = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    begin = server.execute("SELECT pg_create_physical_replication_slot('peer', true)", "SELECT pg_current_wal_lsn()")
    arguments = [*as_owner(), str(server.bin / "pgbench"), *address]
    run(bench.folder, [*arguments, "-i", "-q", "-s", "10", "postgres"], {})
    run(
        bench.folder,
        [*arguments, "-n", "-c", "4", "-t", str(int(50_000 * min(1, max(bench.gib, 0.1)))), "postgres"],
        {},
    )
    end = parse_lsn(server.execute("SELECT pg_switch_wal()", "SELECT pg_current_wal_flush_lsn()")[0][0])
    size = end - parse_lsn(begin[0][0])
    (peer.folder / "wal").mkdir()
    give(peer.folder / "wal")
    stop = format_lsn(end)
    theirs = peer.run(receivewal, *address, "-D", peer.folder / "wal", "-S", "peer", "--endpos", stop, "-n")
    bench.add("WAL backlog", "pg_receivewal", theirs, mb_per_second=size / 1e6 / theirs.seconds)
    cost = ours.perdure.run("sync", "main")
    bench.add("WAL backlog", "perdure 18", cost, mb_per_second=int(cost.answer["bytes"]) / 1e6 / cost.seconds)
    server.execute("SELECT pg_drop_replication_slot('peer')")


def lag(bench: Bench, server: PostgresServer, ours: Protected) -> None:
    seconds = 30.0 if bench.gib >= 1 else 10.0
    events = ours.work / "events"
    command = [sys.executable, "-m", "perdure", "watch", "main", "--json", "--ship-every", SHIP_EVERY]
    environment = {
        **os.environ,
        "PERDURE_HOME": str(ours.perdure.home),
        "PERDURE_PASSPHRASE_FILE": str(ours.perdure.passphrase_file),
    }
    with events.open("wb") as output, subprocess.Popen(command, stdout=output, env=environment) as watch:
        try:
            with load(bench, server, LAG_TPS):
                time.sleep(3)
                skipped = len(events.read_text().splitlines())
                begun = server.execute("SELECT count(*) FROM small")[0][0]
                time.sleep(seconds)
                rate = (server.execute("SELECT count(*) FROM small")[0][0] - begun) / seconds
        finally:
            watch.send_signal(signal.SIGTERM)
            watch.wait()
    told = [json.loads(line) for line in events.read_text().splitlines()[skipped:]]
    lags = sorted((event["lag_ms"]["p99"], event["commits"]) for event in told if event.get("lag_ms"))
    cost = Cost(" ".join(command), seconds, 0.0, 0, {})
    middle, most = weighted(lags, 0.5), weighted(lags, 0.99)
    bench.add(f"lag at {LAG_TPS} tps", "perdure 18", cost, tps=rate, p50_ms=middle, p99_ms=most)


def weighted(values: list[tuple[float, int]], share: float) -> float:
    """The value below which such a share of transactions lies; for each shipment all have its 99th percentile."""
    wanted, seen = share * sum(count for _, count in values), 0
    for value, count in values:
        seen += count
        if seen >= wanted:
            return value
    return 0.0


# --- the table -----------------------------------------------------------------------------------


def table(bench: Bench) -> list[str]:
    """What must be reached, and what was."""
    found: list[str] = []

    def ratio(work: str, tool: str, ours: str, wanted: float) -> None:
        theirs, mine = bench.seconds(work, tool), bench.seconds(work, ours)
        if theirs is not None and mine is not None:
            found.append(f"{work}: {theirs / mine:.2f} times as fast as {tool} (wanted {wanted})")

    ratio("first copy", "pgbackrest", "perdure 15", 1.2)
    ratio("first copy", "barman", "perdure 15", 1.0)
    pool, repo = bench.figure("first copy", "perdure 15", "stored"), bench.figure("first copy", "pgbackrest", "stored")
    if pool is not None and repo is not None:
        found.append(f"first copy: pool of {pool / repo:.2f} times pgbackrest's (wanted 1.0 at most)")
    ratio("express full", "pgbackrest", "perdure 15", 5)
    ratio("express full", "pg_basebackup", "perdure 18", 5)
    for name, what in (("pages_read_share", "pages"), ("all_read_share", "everything the process read")):
        share = bench.figure("express full", "perdure 18", name)
        if share is not None:
            found.append(f"express full: read {share:.2%} of the data directory ({what}; wanted 3 % at most)")
    ratio("recovery", "pgbackrest", "perdure 15", 1.2)
    ratio("recovery", "pg_combinebackup", "perdure 18", 1.0)
    for major in (15, 18):
        whole, delta = bench.seconds("recovery", f"perdure {major}"), bench.seconds("delta restore", f"perdure {major}")
        if whole is not None and delta is not None:
            found.append(f"delta restore on {major}: {whole / delta:.2f} times as fast as a whole one (wanted 5)")
    mine, theirs = (bench.figure("WAL backlog", tool, "mb_per_second") for tool in ("perdure 18", "pg_receivewal"))
    if mine is not None and theirs is not None:
        found.append(f"WAL backlog: {mine / theirs:.0%} of pg_receivewal's rate (wanted 90 %)")
    most = bench.figure(f"lag at {LAG_TPS} tps", "perdure 18", "p99_ms")
    if most is not None:
        found.append(f"lag at {LAG_TPS} tps: p99 {most:.0f} ms with --ship-every {SHIP_EVERY} (wanted 100 at most)")
    return found


PARTS: dict[str, Callable[[Bench], None]] = {"copies": copies, "log": log}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=0.1, help="GiB of each cluster (default 0.1)")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="measure only this; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        free = shutil.disk_usage(folder).free
        if free < ROOM * given.size * GIB + GIB:
            parser.error(f"{folder} has {free / GIB:.0f} GiB free; {ROOM * given.size + 1:.0f} are needed; set TMPDIR")
        bench = Bench(folder, given.size)
        give(folder)
        for part in given.only or list(PARTS):
            PARTS[part](bench)
        print(*table(bench), sep="\n")
        if given.json:
            given.json.write_text(json.dumps(bench.rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
