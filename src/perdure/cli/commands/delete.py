"""``perdure delete``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.point_names import parse_point
from perdure.cli.session import Session
from perdure.cli.wording import count
from perdure.model.errors import BadInput, Refused

__all__ = ["delete"]


def delete(
    *points: Annotated[str, Parameter(metavar="NAME#NUMBER")],
    yes: bool = False,
    pool: str | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Delete single recovery points, whatever the retention policy says of them.

    The newest recovery point of a data source and held ones are never deleted. The log stays. The space comes back
    when garbage is collected, with perdure gc or perdure prune.

    For example:

        perdure delete app#12 app#13 --yes

    Args:
        points: The recovery points, as NAME#NUMBER.
        yes: Confirm; without it nothing is deleted.
        pool: Do it in the pool at this path, such as a second copy, instead of the one it is protected in.
    """
    wanted: dict[str, list[int]] = {}
    for text in points:
        name, number = parse_point(text)
        wanted.setdefault(name, []).append(number)
    if not wanted:
        raise BadInput("no recovery point was named", code="bad-point", hint="write NAME#NUMBER, for example app#12")
    if not yes:
        raise Refused(
            f"{count(len(points), 'recovery point')} would be deleted for good; nothing was deleted",
            code="confirmation-needed",
            hint="add --yes to confirm",
        )
    with Session(common) as session:
        for name, numbers in wanted.items():
            protected = session.protected(name, pool)
            if locked := protected.vault.delete_points(protected.source.id, numbers):
                raise Refused(
                    f"{name}#{locked[0]} is locked against deletion by the storage; what was not locked is deleted",
                    code="object-locked",
                    hint="it can be deleted when its lock has run out; perdure prune --plan shows until when it stays",
                )
    if common.json:
        print_json({"deleted": [{"source": name, "numbers": numbers} for name, numbers in wanted.items()]})
    else:
        print_lines([f"Deleted {count(len(points), 'recovery point')}. Reclaim the space with: perdure gc"])
    return 0
