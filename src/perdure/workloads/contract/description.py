"""What a workload says of itself, and of what it is asked to protect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

__all__ = ["AdvisingWorkload", "Capabilities", "Configured", "ConfiguredWorkload", "WorkloadInfo"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a workload offers.

    Args:
        log: It ships a transaction log, so there are points between images.
        items: Single items can be listed and recovered.
        why_not: For each thing not offered, the sentence that says why.
    """

    log: bool
    items: bool
    why_not: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkloadInfo:
    """What ``discover`` found at a location.

    Args:
        location: The location in normal form (absolute path).
        description: One line for people: version, size, mode.
        default_name: A name to register it under when the person gave none.
    """

    location: str
    description: str
    default_name: str


@dataclass(frozen=True, slots=True)
class Configured:
    """What a workload made of a location and its options.

    Args:
        info: As ``discover`` gives it.
        options: The options in normal form, to be kept with the source.
    """

    info: WorkloadInfo
    options: Mapping[str, Sequence[str]]


@runtime_checkable
class ConfiguredWorkload(Protocol):
    """A workload whose options say what a location means."""

    def configure(self, location: str, options: Mapping[str, Sequence[str]]) -> Configured:
        """Look at a location and check the options, without changing anything. Raises as ``discover`` does."""
        ...


@runtime_checkable
class AdvisingWorkload(Protocol):
    """A workload that changes nothing at the source itself: it says what a person has to do."""

    def preparation(self, location: str) -> list[str]:
        """Lines in the source's own language, comments among them."""
        ...
