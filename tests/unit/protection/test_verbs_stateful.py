"""Random work on a protected database: whatever happens, every listed place recovers to what was there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from perdure.model.targets import AtPoint, AtPosition, AtTime, Latest, Target
from perdure.protection.image_verbs import check, express_full, synchronize
from perdure.protection.points import timeline_rows
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.testing.paged_scene import Scene


class Protection(RuleBasedStateMachine):
    """The model is the list of committed states with their times."""

    scene: Scene
    protected: Protected

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="perdure-stateful-"))
        self.states: list[tuple[int, bytes]] = []
        self.recoveries = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        self.scene = Scene(self.root)
        self.commit([(0, 1), (3, 2)], None)
        self.protected = self.scene.protect()

    @rule(
        writes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 255)), max_size=4),
        pages=st.none() | st.integers(1, 10),
    )
    def commit(self, writes: list[tuple[int, int]], pages: int | None) -> None:
        size = self.scene.database.page_size
        self.scene.database.commit({page: bytes([value]) * size for page, value in writes}, pages)
        self.states.append((self.scene.database.log[-1].time_ns, bytes(self.scene.database.content)))

    @rule()
    def synchronize(self) -> None:
        synchronize(self.protected)
        self.everything_is_there()

    @rule()
    def express_full(self) -> None:
        express_full(self.protected)
        self.everything_is_there()

    @rule()
    def check(self) -> None:
        assert check(self.protected).ranges == () or "tracking lost" in self.newest_cause()
        self.everything_is_there()

    @rule(page=st.integers(0, 9))
    def silent_change_is_repaired(self, page: int) -> None:
        synchronize(self.protected)
        if (page + 1) * 64 > len(self.scene.database.content):
            return
        self.scene.database.change_silently(page, b"silent".ljust(64))
        check(self.protected)
        # Where the repaired image lies at the position of a commit, it is what that place shows from now on. After
        # the log was cut it begins a generation of its own, and shows its own moment.
        rows = timeline_rows(self.scene.vault, self.protected.source.id, commits=True)
        repaired = self.scene.vault.points(self.protected.source.id)[-1]
        times = [row.time_ns for row in rows if row.number is None and row.position == repaired.position]
        self.states.append((times[0] if times else repaired.time_ns, bytes(self.scene.database.content)))
        self.everything_is_there()

    @rule()
    def lose_the_log(self) -> None:
        self.scene.database.cut_log()

    @rule(row=st.integers(0, 10**6))
    def recover_any_row(self, row: int) -> None:
        rows = timeline_rows(self.scene.vault, self.protected.source.id, commits=True)
        chosen = rows[row % len(rows)]
        target: Target
        if chosen.number is not None:
            assert self.recovered(AtPoint(chosen.number)) in [content for _, content in self.states]
            return
        assert chosen.position is not None
        target = AtPosition(chosen.position)
        # A repaired image may show another state at the very time of a commit, at a later position.
        assert self.recovered(target) in [content for time_ns, content in self.states if time_ns == chosen.time_ns]
        assert self.recovered(AtTime(chosen.time_ns)) == dict(self.states)[chosen.time_ns]

    def newest_cause(self) -> str:
        return self.scene.vault.points(self.protected.source.id)[-1].cause

    def everything_is_there(self) -> None:
        assert self.recovered(Latest()) == bytes(self.scene.database.content)

    def recovered(self, to: Target) -> bytes:
        self.recoveries += 1
        target = self.root / f"recovered-{self.recoveries}"
        recover(self.protected, to=to, target=target)
        return target.read_bytes()


Protection.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestProtection = Protection.TestCase
