"""Headers that are stored twice: which copies are sound, and which one counts."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.ese.checksums import xor32

__all__ = ["CopiesState", "chosen_copy"]


@dataclass(frozen=True, slots=True)
class CopiesState:
    """How the two copies of a header are.

    Args:
        primary_sound: The checksum of the first copy holds.
        shadow_sound: The checksum of the second copy holds.
        equal: Both hold the same bytes. Sound copies that differ come from a crash between two writes.
    """

    primary_sound: bool
    shadow_sound: bool
    equal: bool

    @property
    def used(self) -> str:
        """The copy that counts: ``primary``, ``shadow`` or, if neither is sound, ``none``."""
        if self.primary_sound:
            return "primary"
        return "shadow" if self.shadow_sound else "none"


def chosen_copy(primary: bytes, shadow: bytes) -> tuple[bytes | None, CopiesState]:
    """The copy that counts, ``None`` if neither is sound, and how both are."""
    state = CopiesState(_sound(primary), _sound(shadow), primary == shadow)
    return {"primary": primary, "shadow": shadow}.get(state.used), state


def _sound(copy: bytes) -> bool:
    return len(copy) > 8 and len(copy) % 8 == 0 and any(copy) and int.from_bytes(copy[:4], "little") == xor32(copy)
