"""``perdure verify``."""

from __future__ import annotations

from dataclasses import asdict

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import count, size
from perdure.model.errors import Damaged

__all__ = ["verify"]


def verify(path: str, /, *, data: bool = False, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Check that everything in a pool is what was written.

    It reads every record, map, folder listing and log footer, and checks that every chunk that they need is there.
    It exits with status 7 when it finds damage, and names the recovery points that the damage touches.

    For example:

        perdure verify /mnt/backup/pool
        perdure verify /mnt/backup/pool --data

    Args:
        path: The directory that the pool lies in, or its URL.
        data: Also read, decrypt and hash every chunk.
    """
    from perdure.repository.verify import verify_pool

    with Session(common) as session:
        opened = session.pool_at(path)
        total = opened.info().bytes if data else 0
        with progress_bar(common) as report_progress:
            found = verify_pool(opened, data=data, progress=lambda done: report_progress("verifying", done, total))
    if common.json:
        print_json({**asdict(found), "data": data, "sound": not found.damage})
        return Damaged.exit_status if found.damage else 0
    counted = (count(found.objects, "object"), count(found.points, "recovery point"), count(found.chunks, "chunk"))
    checked = ", ".join(counted)
    if not found.damage:
        print_lines([f"Sound: {checked}, {size(found.bytes)} read{'' if data else ' (without --data)'}."])
        return 0
    print_lines([f"DAMAGE in {count(len(found.damage), 'place')}. Checked: {checked}, {size(found.bytes)} read."])
    for damage in found.damage:
        print_lines([f"  {damage.object} ({damage.kind}): {damage.what}"])
        print_lines([f"    affects {point}" for point in damage.points_affected])
    print_lines(["Recovery points that are not named here still recover."])
    return Damaged.exit_status
