"""The verbs on a simulated database."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from perdure.model.errors import PoolUnusable, Refused, SourceUnusable, TrackingLost
from perdure.model.replica import ReplicaState
from perdure.model.targets import AtPoint, AtPosition, AtTime, Latest, Target
from perdure.protection.browse import browse
from perdure.protection.image_verbs import check, express_full, open_session, protect, synchronize
from perdure.protection.live import LiveSource
from perdure.protection.live_session import surviving_loss
from perdure.protection.points import timeline_of, timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.recovery import PARTIAL, recover
from perdure.protection.status import status
from perdure.protection.watch import watch
from perdure.protection.watch_events import WatchEvent, WatchKind
from perdure.testing.paged_scene import Scene


def recovered(protected: Protected, to: Target, directory: Path) -> bytes:
    target = directory / f"recovered-{len(list(directory.iterdir()))}"
    recover(protected, to=to, target=target)
    return target.read_bytes()


def test_protect_makes_a_first_replica_that_recovers(scene: Scene) -> None:
    """What protect stored is the source, byte for byte, and the replica is ok."""
    protected = scene.protect()

    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)
    assert protected.replica.state is ReplicaState.OK
    assert protected.vault.points(protected.source.id)[0].cause == "first replica"


def test_protect_refuses_a_name_and_a_location_twice(scene: Scene) -> None:
    """Neither a name nor a location is protected twice."""
    scene.protect()

    with pytest.raises(Refused, match="called 'live'"):
        scene.protect()
    with pytest.raises(Refused, match="as 'live'"):
        scene.protect("other")


def test_an_interrupted_first_replica_is_made_again(scene: Scene) -> None:
    """A first replica that failed leaves a registration that the same call completes."""
    scene.vault.full = True
    with pytest.raises(PoolUnusable):
        scene.protect()
    scene.vault.full = False

    protected = scene.protect()

    assert len(scene.vault.sources()) == 1
    assert protected.replica.state is ReplicaState.OK


def test_every_commit_is_recoverable_by_position_and_time(scene: Scene) -> None:
    """Each shipped transaction can be recovered by its position and by its time."""
    protected = scene.protect()
    states = []
    for number in range(5):
        scene.database.commit({number % 4: scene.page(f"commit {number}")})
        states.append((scene.database.log[-1].time_ns, bytes(scene.database.content)))
    result = synchronize(protected)

    rows = [row for row in timeline_rows(scene.vault, protected.source.id, commits=True) if row.number is None]

    assert result.commits == 5
    assert [row.time_ns for row in rows] == [time_ns for time_ns, _ in states]
    for row, (time_ns, content) in zip(rows, states, strict=True):
        assert row.position is not None
        assert recovered(protected, AtPosition(row.position), scene.root) == content
        assert recovered(protected, AtTime(time_ns), scene.root) == content


def test_an_express_full_stores_only_changed_pages(scene: Scene) -> None:
    """Of a changed page only that page is stored, and the older point stays as it was."""
    protected = scene.protect()
    before = bytes(scene.database.content)
    scene.database.commit({2: scene.page("second")})

    point = express_full(protected)

    assert point.changed == scene.database.page_size
    assert recovered(protected, AtPoint(point.number), scene.root) == bytes(scene.database.content)
    assert recovered(protected, AtPoint(1), scene.root) == before


def test_lost_tracking_is_repaired_by_itself(scene: Scene) -> None:
    """After the log was cut, synchronize compares, repairs, records the cause and keeps older points."""
    protected = scene.protect()
    before = bytes(scene.database.content)
    scene.database.commit({1: scene.page("unseen")})
    scene.database.cut_log()

    result = synchronize(protected)

    assert result.cause.startswith("tracking lost: ")
    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)
    assert recovered(protected, AtPoint(1), scene.root) == before
    states = [transition.state for transition in protected.replica.history]
    assert states[-3:] == [ReplicaState.INCONSISTENT, ReplicaState.VERIFYING, ReplicaState.OK]


def test_tracking_lost_under_an_open_session_blocks_shipping_until_compared(scene: Scene) -> None:
    """Log that nothing in the pool leads to is not shipped."""
    protected = scene.protect()
    with open_session(protected) as live:
        live.lose("a test")
        scene.database.commit({0: scene.page("later")})

        assert live.ship().segments == 0

        live.express_full("schedule")
        scene.database.commit({0: scene.page("latest")})
        assert live.ship().commits == 1

    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)


def test_a_check_that_was_killed_leaves_no_gap_of_the_log(scene: Scene) -> None:
    """What was committed before, during and after the check is recoverable, and the replica is compared after all."""
    protected = scene.protect()
    protected.note_state(ReplicaState.VERIFYING, "consistency check")  # what a check that is killed leaves behind
    scene.database.change_silently(3, scene.page("silent"))
    places = []
    for number in range(3):
        scene.database.commit({0: scene.page(f"unshipped {number}")})
        places.append((scene.database.log[-1].time_ns, bytes(scene.database.content)))

    result = synchronize(protected)

    assert result.commits == 3
    assert result.cause == "consistency check"
    assert timeline_of(scene.vault, protected.source.id).gaps() == []
    for time_ns, content in places:
        assert recovered(protected, AtTime(time_ns), scene.root)[: 3 * 64] == content[: 3 * 64]
    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)
    assert protected.replica.state is ReplicaState.OK
    assert synchronize(protected).cause == ""


def test_a_comparison_is_not_forgotten_while_the_source_is_missing(scene: Scene) -> None:
    """A replica that had to be compared before its source went away is compared when it is back."""
    protected = scene.protect()
    protected.note_state(ReplicaState.INCONSISTENT, "the consistency check did not finish")
    scene.database.present = False
    with pytest.raises(SourceUnusable):
        synchronize(protected)
    assert protected.replica.state is ReplicaState.MISSING
    scene.database.present = True

    assert synchronize(protected).cause == "consistency check: the consistency check did not finish"
    assert protected.replica.state is ReplicaState.OK


def test_tracking_that_was_lost_and_found_again_leaves_no_gap(scene: Scene) -> None:
    """When a session ends with a loss and the next one can prove that the log goes on, it does."""
    protected = scene.protect()
    scene.database.commit({0: scene.page("seen")})
    losses = [TrackingLost("the slot was dropped", code="slot-gone")]

    def work(live: LiveSource) -> None:
        if losses:
            raise losses.pop()
        live.express_full("schedule")

    surviving_loss(protected, "express-full", work)

    assert timeline_of(scene.vault, protected.source.id).gaps() == []
    newest = scene.vault.points(protected.source.id)[-1]
    assert newest.cause == "consistency check: the slot was dropped"
    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)


def test_a_check_finds_and_repairs_a_silent_change(scene: Scene) -> None:
    """A page that changed without log is found, named and repaired; a second check finds nothing."""
    protected = scene.protect()
    scene.database.commit({0: scene.page("known")})
    scene.database.change_silently(3, scene.page("silent"))

    report = check(protected)

    assert (report.pages, report.ranges) == (1, (("pages", 3 * 64, 64),))
    assert report.repaired_by is not None
    assert report.repaired_by.cause == "consistency check repaired 1 pages"
    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)
    again = check(protected)
    assert (again.pages, again.repaired_by) == (0, None)


def test_log_that_could_not_be_written_is_kept_and_shipped_later(scene: Scene) -> None:
    """A full pool acknowledges nothing, and no commit is missing once it has room."""
    protected = scene.protect()
    with open_session(protected) as live:
        for number in range(5):
            scene.database.commit({0: scene.page(f"held {number}")})
        scene.vault.full = True
        for _ in range(3):
            with pytest.raises(PoolUnusable):
                live.ship()
        assert scene.vault.spans(protected.source.id) == []
        scene.vault.full = False

        assert live.ship().commits == 5

    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)


def test_a_second_process_is_refused_with_the_first_ones_verb(scene: Scene) -> None:
    """Who holds a source is named to whoever comes second."""
    protected = scene.protect()

    with open_session(protected, "watch"), pytest.raises(Refused, match=r"process \d+ \(watch\)") as refusal:
        synchronize(protected)

    assert refusal.value.code == "source-busy"


def test_a_missing_source_is_a_state_and_ends_when_it_is_back(scene: Scene) -> None:
    """A source that is gone makes the replica missing; when it is back and its log continues, ok."""
    protected = scene.protect()
    scene.database.present = False
    with pytest.raises(SourceUnusable):
        synchronize(protected)
    assert protected.replica.state is ReplicaState.MISSING
    scene.database.present = True

    synchronize(protected)

    assert protected.replica.state is ReplicaState.OK


def test_recovery_never_touches_what_is_there(scene: Scene) -> None:
    """An existing target and the live source are refused, and no partial file stays behind."""
    protected = scene.protect()
    existing = scene.root / "existing"
    existing.write_text("mine")

    with pytest.raises(Refused) as exists:
        recover(protected, to=Latest(), target=existing)
    with pytest.raises(Refused) as live:
        recover(protected, to=Latest(), target=Path(scene.location))
    with pytest.raises(Refused) as unconfirmed:
        recover(protected, to=Latest(), in_place=True)

    assert exists.value.code == "target-exists"
    assert {live.value.code, unconfirmed.value.code} == {"would-overwrite-source"}
    assert existing.read_text() == "mine"
    assert not list(scene.root.glob(f"*{PARTIAL}"))


def test_a_recovery_in_place_keeps_the_old_file_and_its_companions(scene: Scene) -> None:
    """The replaced file and the log beside it are kept under another name."""
    protected = scene.protect()
    live = Path(scene.location)
    live.write_text("noise")
    live.with_name("live.db-wal").write_text("old log")

    report = recover(protected, to=Latest(), in_place=True, yes=True)

    kept = list(scene.root.glob("live.db.before-recovery-*Z"))
    assert live.read_bytes() == bytes(scene.database.content)
    assert [path.read_text() for path in kept] == ["noise"]
    assert kept[0].with_name(kept[0].name + "-wal").read_text() == "old log"
    assert not live.with_name("live.db-wal").exists()
    assert str(kept[0]) in report.notes[0]


def test_a_failed_recovery_leaves_nothing(scene: Scene) -> None:
    """When a chunk is damaged neither a target nor a partial file is there afterwards."""
    protected = scene.protect()
    for chunk, content in scene.vault.chunks.items():
        if b"first 0" in content:
            scene.vault.chunks[chunk] = content[::-1]

    with pytest.raises(Exception, match="damaged"):
        recover(protected, to=Latest(), target=scene.root / "target")

    assert not list(scene.root.glob("target*"))


def test_browse_lists_from_a_temporary_copy_and_removes_it(scene: Scene) -> None:
    """Listing a database leaves nothing in the cache."""
    protected = scene.protect()

    listing = browse(protected)

    assert [item.size for item in listing.items] == [len(scene.database.content)]
    assert not list(scene.home.cache_dir(scene.vault.id).iterdir())


def test_status_tells_state_size_and_points(scene: Scene) -> None:
    """One line per source, with its state, newest point and size."""
    protected = scene.protect()

    (line,) = status(scene.home, lambda _: scene.vault)

    assert (line.source.name, line.state, line.points) == ("live", ReplicaState.OK, 1)
    assert line.size == len(scene.database.content)
    assert not line.watched
    assert protected.source.id == line.source.id


class Listener:
    """Collects events and lets a test wait for one."""

    def __init__(self) -> None:
        self.events: list[WatchEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: WatchEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, kind: WatchKind, count: int = 1, text: str = "") -> None:
        def there() -> bool:
            return sum(event.kind is kind and text in event.message for event in self.events) >= count

        with self._changed:
            assert self._changed.wait_for(there, timeout=30), [e.message for e in self.events]


@pytest.mark.timeout(60)
def test_watch_ships_survives_a_loss_and_a_full_pool_and_ends_cleanly(scene: Scene) -> None:
    """Under watch everything that was committed before the stop is recoverable, whatever went wrong between."""
    protected = scene.protect()
    listener, stop = Listener(), threading.Event()
    watching = threading.Thread(
        target=watch,
        args=([protected],),
        kwargs={"stop": stop, "on_event": listener, "ship_every_ms": 1, "express_full_every_s": 10**9},
    )
    watching.start()
    try:
        scene.database.commit({0: scene.page("one")})
        listener.wait_for(WatchKind.LOG)
        scene.vault.full = True
        scene.database.commit({0: scene.page("two")})
        listener.wait_for(WatchKind.WARNING, text="is full")
        scene.vault.full = False
        listener.wait_for(WatchKind.LOG, 2)
        scene.database.cut_log()
        listener.wait_for(WatchKind.EXPRESS_FULL, text="tracking lost")
        scene.database.present = False
        listener.wait_for(WatchKind.STATE, text="missing")
        scene.database.present = True
        scene.database.commit({1: scene.page("last")})
        listener.wait_for(WatchKind.LOG, 3)
    finally:
        stop.set()
        watching.join()

    assert recovered(protected, Latest(), scene.root) == bytes(scene.database.content)
    assert protected.replica.state is ReplicaState.OK


def test_stored_pages_are_numbers_of_the_reader(scene: Scene) -> None:
    """Shrinking and growing again leaves zeros, not old pages."""
    protected = scene.protect()
    scene.database.commit({}, pages=2)
    scene.database.commit({4: scene.page("grown")})
    express_full(protected)

    content = np.frombuffer(recovered(protected, Latest(), scene.root), dtype=np.uint8)

    assert content.tobytes() == bytes(scene.database.content)
    assert not content[2 * 64 : 4 * 64].any()


def test_protect_needs_a_source_that_is_there(scene: Scene) -> None:
    """A location with nothing at it is refused before anything is registered."""
    with pytest.raises(SourceUnusable):
        protect(scene.home, scene.vault, "paged", "/nowhere", workload=scene.workload)

    assert scene.vault.sources() == []
