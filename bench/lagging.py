"""Log lag under load: from COMMIT returned, by the writers' ledger, to durable in the pool."""

from __future__ import annotations

import shutil
from time import monotonic, sleep, time_ns

from tools import Cost, Perdure
from workspace import Workspace

from perdure.model.positions import Position
from perdure.testing.demo.answers import LOG, commits, shipments
from perdure.testing.demo.lag import Anchor, Line, measure
from perdure.testing.demo.program import Program
from perdure.testing.demo.watching import Watch
from perdure.testing.mailstore import Ledger, clock_of, fill, start_writer, stop_writer

LAG = "log lag"
RATE = 2000
WRITERS = 2
SECONDS = 30.0


def log_lag(space: Workspace) -> None:
    """``perdure watch`` while two writers together make 2,000 commits a second."""
    space.results.begin(LAG)
    for round_ in range(1, space.rounds + 1):
        work = space.fresh("log-lag")
        database, book = work / "mail.db", work / "ledger"
        fill(database, book, size=space.bytes(0.1))
        perdure = Perdure(work, "mail")
        program = Program(perdure.home, perdure.passphrase_file, perdure.folder / "stderr")
        perdure.run("protect", f"sqlite:{database}", "--pool", perdure.pool, "--as", "mail")
        seconds = max(3.0, SECONDS * min(1.0, space.scale))
        writers = [
            start_writer(database, book, f"writer-{i}", seed=i, rate=RATE / WRITERS, small=True) for i in range(WRITERS)
        ]
        try:
            with Watch(program, "mail", "--express-full-every", "10s") as watch:
                watch.wait_for(LOG, 120.0)
                since = time_ns()
                begun = monotonic()
                sleep(seconds)
                taken = monotonic() - begun
                until = time_ns()
                for writer in writers:
                    stop_writer(writer)
                watch.stop()
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
        ledger = Ledger.load(book)
        target = work / "recovered.db"
        answer = program.run("recover", "mail", "--to", "latest", "--target", target)
        n = clock_of(target)
        if n != ledger.last or ledger.compare(target, n):
            raise RuntimeError(f"the recovered mail store is not what the ledger says at commit {n} of {ledger.last}")
        line = Line(
            commits(program.run("points", "mail", "--commits").document),
            Anchor(Position.parse(answer.document["position"]), n),
        )
        lag = measure(line, ledger, shipments(watch.events), since)
        rate = (ledger.bounds_at(until).committed - ledger.bounds_at(since).committed) / taken
        cost = Cost("perdure watch mail --express-full-every 10s", taken, 0.0, 0, {})
        space.results.add(
            LAG, "perdure", round_, cost, rate=rate, commits=lag.commits, p50=lag.p50, p99=lag.p99, max=lag.max
        )
        shutil.rmtree(work)
