"""How the demo fails."""

from __future__ import annotations

__all__ = ["DemoFailed"]


class DemoFailed(Exception):
    """A check failed, or a command did: the message says which, and what was expected."""
