"""States of a replica and the transitions between them, after DPM's replica state machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from perdure.model.errors import PerdureError

__all__ = ["HISTORY", "Replica", "ReplicaState", "Transition"]


class ReplicaState(StrEnum):
    """What the replica is good for."""

    UNPROTECTED = "unprotected"
    INITIALIZING = "initialization in progress"
    OK = "ok"
    INCONSISTENT = "inconsistent"
    VERIFYING = "verification in progress"
    MISSING = "missing"
    INACTIVE = "inactive"


HISTORY = 200
"""How many transitions a replica remembers."""

_ALLOWED: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.UNPROTECTED: frozenset({ReplicaState.INITIALIZING, ReplicaState.INACTIVE}),
    ReplicaState.INITIALIZING: frozenset({ReplicaState.OK, ReplicaState.UNPROTECTED, ReplicaState.INITIALIZING}),
    ReplicaState.OK: frozenset(
        {ReplicaState.INCONSISTENT, ReplicaState.VERIFYING, ReplicaState.MISSING, ReplicaState.INACTIVE}
    ),
    ReplicaState.INCONSISTENT: frozenset({ReplicaState.VERIFYING, ReplicaState.MISSING, ReplicaState.INACTIVE}),
    ReplicaState.VERIFYING: frozenset({ReplicaState.OK, ReplicaState.INCONSISTENT, ReplicaState.MISSING}),
    ReplicaState.MISSING: frozenset({ReplicaState.VERIFYING, ReplicaState.INCONSISTENT, ReplicaState.INACTIVE}),
    ReplicaState.INACTIVE: frozenset({ReplicaState.INCONSISTENT, ReplicaState.VERIFYING}),
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state: when, to what, and why."""

    state: ReplicaState
    time_ns: int
    cause: str


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica's state with the history that led to it, newest last.

    The history is bounded by :data:`HISTORY`: a source that flaps must not grow its state for ever.
    """

    history: tuple[Transition, ...] = ()

    @property
    def state(self) -> ReplicaState:
        return self.history[-1].state if self.history else ReplicaState.UNPROTECTED

    @property
    def cause(self) -> str:
        return self.history[-1].cause if self.history else "not protected yet"

    @property
    def owed_comparison(self) -> str:
        """Why the replica must be compared with its source, even if that was missing since; empty if it need not be."""
        for transition in reversed(self.history):
            if transition.state is not ReplicaState.MISSING:
                owed = transition.state in (ReplicaState.INCONSISTENT, ReplicaState.VERIFYING)
                return transition.cause if owed else ""
        return ""

    def inconsistent_ns(self, since_ns: int, until_ns: int) -> int:
        """Nanoseconds between two moments for which the replica did not follow its source."""
        total = 0
        ends = [*(transition.time_ns for transition in self.history[1:]), until_ns]
        for transition, end_ns in zip(self.history, ends, strict=False):
            if transition.state in (ReplicaState.INCONSISTENT, ReplicaState.MISSING):
                total += max(0, min(end_ns, until_ns) - max(transition.time_ns, since_ns))
        return total

    def to(self, state: ReplicaState, cause: str, time_ns: int) -> Replica:
        """Change state.

        Raises:
            PerdureError: The state machine has no such transition.
        """
        if state == self.state and cause == self.cause:
            return self
        if state != self.state and state not in _ALLOWED[self.state]:
            raise PerdureError(
                f"a replica cannot go from {self.state.value!r} to {state.value!r} ({cause})", code="bad-transition"
            )
        return Replica((*self.history, Transition(state, time_ns, cause))[-HISTORY:])
