"""Beginning a capture that builds on an earlier recovery point."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perdure.model.errors import Refused
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.protection.vault import Capture, Vault

__all__ = ["begin_capture", "newest_image", "newest_tree"]


def newest_image(points: Sequence[RecoveryPoint]) -> RecoveryPoint | None:
    """The image at the farthest position; of several there the newest."""
    images = [point for point in points if point.position is not None]
    return max(images, key=lambda point: (point.position or Position(0, 0), point.number), default=None)


def newest_tree(points: Sequence[RecoveryPoint]) -> RecoveryPoint | None:
    """The newest file recovery point."""
    return max((point for point in points if point.tree is not None), key=lambda point: point.number, default=None)


def begin_capture(
    vault: Vault,
    source: str,
    previous: RecoveryPoint | None,
    newest: Callable[[Sequence[RecoveryPoint]], RecoveryPoint | None],
) -> Capture:
    """Begin a capture of a source that names chunks of an earlier point without storing them.

    What the newest point needs is never garbage, and when somebody commits a newer one, this capture's commit is
    refused. That protects only if the point is still the newest when the capture has begun: one that was chosen before
    may have been succeeded, deleted and condemned by another machine since then, in lists that the capture seems to
    know.

    Args:
        vault: The pool.
        source: Id of the data source.
        previous: The point that it builds on, chosen before; ``None``: there was none.
        newest: How it was chosen.

    Raises:
        Refused: It is not what would be chosen now.
    """
    capture = vault.capture(source)
    try:
        now = newest(vault.points(source))
    except BaseException:
        capture.abort()
        raise
    if (now and now.number) != (previous and previous.number):
        capture.abort()
        raise Refused(
            "the recovery points of this source changed while a new one was begun; nothing of it was committed",
            code="point-exists",
            hint="only one perdure process may protect a source; run the command again",
        )
    return capture
