"""``perdure verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perdure.cli.documents import plain
from perdure.cli.intervals import seconds_of
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines, remark
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import count, size
from perdure.model.errors import BadInput, Damaged
from perdure.model.moments import moment_text, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.protection.healing import LiveOrigin
    from perdure.repository.damage import Damage
    from perdure.repository.heal import Healing
    from perdure.repository.pool import Pool
    from perdure.repository.verify_report import VerifyReport

__all__ = ["verify"]


def verify(
    path: str,
    /,
    *,
    data: bool = False,
    max_duration: str = "",
    heal: bool = False,
    from_: Annotated[str, Parameter(name="--from")] = "",
    from_passphrase_file: Path | None = None,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Check that everything in a pool is what was written, and heal what is not.

    It reads every record, map, folder listing and log footer, and checks that every chunk that they need is there.
    With --data it also reads packs and log whole. It exits with status 7 when damage is left, and names the recovery
    points that the damage touches. What it finds is noted in the pool, for status, points and prune.

    With --heal it takes good content from wherever it still is: another copy in the pool, the pool given with --from,
    or the live data sources of this machine. It takes nothing whose hash is not right, and loses no good copy.

    For example:

        perdure verify /mnt/backup/pool
        perdure verify /mnt/backup/pool --data --max-duration 2h
        perdure verify /mnt/backup/pool --data --heal --from s3://bucket/pool

    Args:
        path: The directory that the pool lies in, or its URL.
        data: Also read, decrypt and hash every chunk and all log.
        max_duration: With --data, stop after this time; what was not read for the longest time is read first, so that
            nightly runs cover the pool in turn.
        heal: Put good content in the place of what is damaged.
        from_: With --heal, another storage pool that holds copies of the same recovery points.
        from_passphrase_file: The passphrase file of that other pool, if it has another passphrase.
    """
    limit_s = _limit(max_duration, data=data)
    if from_ and not heal:
        raise BadInput("--from is for --heal", code="bad-usage", hint="add --heal to take good content from there")
    from perdure.repository.heal import heal_pool
    from perdure.repository.verify import verify_pool

    with Session(common) as session:
        opened = session.pool_at(path)
        other = session.pool_at(from_, passphrase_file=from_passphrase_file, remember=False) if from_ else None
        if other is not None and other.id == opened.id:
            raise BadInput("--from names the pool itself", code="bad-usage", hint="name another pool after --from")
        total = opened.info().bytes if data and limit_s is None else 0
        with progress_bar(common) as report_progress:
            found = verify_pool(
                opened,
                data=data,
                max_duration_s=limit_s,
                progress=lambda done: report_progress("verifying", done, total),
            )
            healing = None
            if heal and not found.sound:
                healing = heal_pool(
                    opened,
                    found,
                    other=other,
                    origins=list(_live_origins(session, opened)),
                    progress=lambda done: report_progress("healing", done, 0),
                )
    left = found.damage if healing is None else healing.report.damage
    if common.json:
        print_json({**_document(found, left, healing), "data": data})
    else:
        for note in found.notes:
            remark(f"warning: {note}")
        print_lines(_lines(found, left, healing, data=data))
    return Damaged.exit_status if left else 0


def _limit(max_duration: str, *, data: bool) -> float | None:
    if not max_duration:
        return None
    if not data:
        raise BadInput(
            "--max-duration is for --data; without it everything is checked",
            code="bad-usage",
            hint="add --data, or leave --max-duration out",
        )
    return seconds_of(max_duration, "--max-duration")


def _live_origins(session: Session, pool: Pool) -> Iterator[LiveOrigin]:
    """The live sources of this machine that the pool protects."""
    from perdure.protection.healing import LiveOrigin

    known = {source.id for source in session.home.sources() if source.pool_id == pool.id}
    for source in pool.sources():
        if source.id in known:
            yield LiveOrigin(pool, source)


def _document(found: VerifyReport, left: tuple[Damage, ...], healing: Healing | None) -> dict[str, Any]:
    return {
        "objects": found.objects,
        "chunks": found.chunks,
        "bytes": found.bytes,
        "points": found.points,
        "read": found.read,
        "to_read": found.to_read,
        "oldest": rfc3339(found.oldest_ns) if found.oldest_ns else None,
        "notes": list(found.notes),
        "found": [plain(damage) for damage in found.damage],
        "healed": [plain(each) for each in healing.healed] if healing is not None else [],
        "damage": [plain(damage) for damage in left],
        "sound": not left,
    }


def _lines(found: VerifyReport, left: tuple[Damage, ...], healing: Healing | None, *, data: bool) -> list[str]:
    counted = (count(found.objects, "object"), count(found.points, "recovery point"), count(found.chunks, "chunk"))
    checked = ", ".join(counted)
    lines = []
    if not found.damage:
        lines.append(f"Sound: {checked}, {size(found.bytes)} read{'' if data else ' (without --data)'}.")
    else:
        where = count(len(found.damage), "place")
        lines.append(f"DAMAGE in {where}. Checked: {checked}, {size(found.bytes)} read.")
        lines += _damage_lines(found.damage)
    if data:
        lines.append(_coverage(found))
    if healing is not None:
        lines += [f"Healed {each.object} ({each.kind}): {each.how}." for each in healing.healed]
        if not left:
            lines.append("Everything that was damaged is healed.")
        else:
            lines.append(f"NOT HEALED: {count(len(left), 'place')}.")
            lines += _damage_lines(left)
    if left:
        lines.append("Recovery points that are not named here still recover.")
    return lines


def _coverage(found: VerifyReport) -> str:
    whole = f"Read whole: {found.read} of {count(found.to_read, 'pack and log segment', 'packs and log segments')}"
    if found.read >= found.to_read:
        return f"{whole}."
    oldest = f"on {moment_text(found.oldest_ns)}" if found.oldest_ns else "never, for some of them"
    return f"{whole}; the oldest was last read {oldest}."


def _damage_lines(damage: tuple[Damage, ...]) -> list[str]:
    lines = []
    for each in damage:
        lines.append(f"  {each.object} ({each.kind}): {each.what}")
        lines += [f"    affects {point}" for point in each.points_affected]
    return lines
