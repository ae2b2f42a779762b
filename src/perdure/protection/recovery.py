"""Recovery: bringing a source back as it was at a target, beside what is there, checked, then under its name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perdure.model.errors import BadInput, Damaged, Refused
from perdure.model.listings import load_root
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.targets import Latest, Target
from perdure.model.timeline import RecoveryPlan
from perdure.protection.delta_recovery import recover_onto
from perdure.protection.directory_recovery import check_options, recover_directory
from perdure.protection.image_restore import restore_image
from perdure.protection.item_recovery import dump_items, load_items
from perdure.protection.planning import plan_for
from perdure.protection.progress import Progress, quiet
from perdure.protection.protected import Protected, image_workload
from perdure.protection.recovery_places import (
    PARTIAL,
    clear_of_partial,
    companions_of,
    kept_name,
    partial_of,
    refuse_existing,
    refuse_source,
    remove,
    rename_new,
    sync_path,
)
from perdure.workloads.contract import DirectoryWorkload, FolderWorkload, StartedWorkload, Verification
from perdure.workloads.files.restore import restore_tree
from perdure.workloads.recovery_contract import ServingWorkload

__all__ = ["PARTIAL", "RecoveryReport", "Verify", "recover"]

Verify = Literal["quick", "thorough", "none"]


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was recovered.

    Args:
        point: The record that it stands on.
        position: The position that it shows, for databases.
        time_ns: The moment that it shows, nanoseconds since 1970 UTC.
        paths: Where it was written.
        bytes: Bytes written, by file size.
        seconds: How long it took.
        verification: What the engine's own means said; ``None`` if that was not asked for.
        notes: What a person should know.
    """

    point: RecoveryPoint
    position: Position | None
    time_ns: int
    paths: tuple[Path, ...]
    bytes: int
    seconds: float
    verification: Verification | None
    notes: tuple[str, ...]


def recover(
    p: Protected,
    *,
    to: Target,
    target: Path | None = None,
    in_place: bool = False,
    yes: bool = False,
    items: Sequence[str] = (),
    verify: Verify = "quick",
    options: Mapping[str, str] | None = None,
    scratch: Path | None = None,
    progress: Progress = quiet,
) -> RecoveryReport:
    """Recover a source to a target moment.

    Everything is written under a name that ends in ``.perdure-partial`` and renamed when it is whole, so
    that no half file ever has the final name. In place, the old file is kept beside the new one.

    Args:
        p: The source.
        to: What to recover.
        target: Where to; not needed in place.
        in_place: Replace the source itself.
        yes: Confirms ``in_place``.
        items: Only these: paths of a folder; databases, schemas and tables, which are dumped to a file.
        verify: How to check a recovered database by its engine's own means.
        options: The workload's own options, such as the layout of what is recovered.
        scratch: Directory for a temporary copy, where items take one.
        progress: Told of the bytes.

    Raises:
        NotFound, Refused, BadInput: As :meth:`perdure.model.timeline.Timeline.resolve`.
        Refused: The target exists (``target-exists``), is the live source (``would-overwrite-source``), or
            items were asked for where they cannot be.
        Damaged: The pool is damaged where this recovery reads, or the verification failed.
        Partial: The target's file system is full (``target-full``) or fails; nothing is left behind.
    """
    started = time.monotonic()
    if in_place and not yes:
        raise Refused(
            f"recovering {p.source.name!r} in place replaces {p.source.location}; nothing was changed",
            code="would-overwrite-source",
            hint="add --yes to confirm, or give --target PATH to recover beside it",
        )
    _refuse_lonely_options(options or {}, items)
    loads = bool((options or {}).get("load"))
    if loads and not items:
        raise BadInput(
            "only items are loaded into a server, and none is named",
            code="bad-recovery-option",
            hint="name them with --item, for example --item shop.public.orders",
        )
    if target is None and not in_place and not loads:
        raise Refused(
            "there is no target to recover to", code="no-target", hint="give --target PATH, or --in-place --yes"
        )
    check_options(p, options or {})
    if (options or {}).get("roll-forward") and not isinstance(to, Latest):
        raise BadInput(
            "only the latest moment can be rolled forward: surviving log leads on from nowhere else",
            code="bad-recovery-option",
            hint="recover --to latest, or leave --roll-forward out",
        )
    if (options or {}).get("standby") and not isinstance(to, Latest):
        raise BadInput(
            "a standby follows the log to its end, so it cannot be made of an earlier moment",
            code="bad-recovery-option",
            hint="recover --to latest, or leave --standby out",
        )
    plan = plan_for(p, to)
    notes = [plan.note] if plan.note else []
    verification: Verification | None
    if isinstance(p.workload, FolderWorkload):
        final = Path(p.source.location) if target is None or in_place else target
        size, verification = _recover_tree(p, plan, final, items, in_place=in_place, notes=notes, progress=progress)
        paths: tuple[Path, ...] = (final,)
    else:
        if items and isinstance(p.workload, ServingWorkload):
            return _recover_items(
                p, plan, target, items, options=options or {}, scratch=scratch, started=started, progress=progress
            )
        if items:
            raise Refused(
                p.workload.capabilities.why_not.get(
                    "items", "items of a database are not recovered one by one; recover it and copy them out"
                ),
                code="no-item-recovery",
                hint="recover the database to another path with --target, and copy what you need from there",
            )
        if isinstance(p.workload, DirectoryWorkload):
            return _recover_directory(
                p,
                plan,
                None if in_place else target,
                yes=yes,
                verify=verify,
                options=options or {},
                started=started,
                progress=progress,
            )
        where = p.workload.in_place_target(p.source.location) if in_place or target is None else target
        if not in_place:
            refuse_source(p, where)
        finals = _final_paths(p, plan, where)
        _refuse_targets(p, list(finals.values()), in_place=in_place)
        size, verification = _recover_image(
            p, plan, finals, in_place=in_place, verify=verify, notes=notes, progress=progress
        )
        paths = tuple(finals.values())
    seconds = time.monotonic() - started
    return RecoveryReport(plan.point, plan.upto, plan.time_ns, paths, size, seconds, verification, tuple(notes))


_BELONGING = {"into-schema": "load", "overwrite": "load", "primary-conninfo": "standby"}
_OF_WHOLE_SOURCES = ("port", "start", "delta", "standby", "fetch-wal")


def _refuse_lonely_options(options: Mapping[str, str], items: Sequence[str]) -> None:
    """An option that would have no effect was meant to have one."""
    for option, needed in _BELONGING.items():
        if option in options and needed not in options:
            raise BadInput(
                f"--{option} says how --{needed} is done, and that is not asked for",
                code="bad-recovery-option",
                hint=f"add --{needed}, or leave --{option} out",
            )
    wrong = next((option for option in _OF_WHOLE_SOURCES if option in options), "") if items else ""
    if wrong:
        raise BadInput(
            f"--{wrong} is for a source that is recovered as a whole, and items are named",
            code="bad-recovery-option",
            hint=f"leave --{wrong} or --item out",
        )


def _recover_items(
    p: Protected,
    plan: RecoveryPlan,
    target: Path | None,
    items: Sequence[str],
    *,
    options: Mapping[str, str],
    scratch: Path | None,
    started: float,
    progress: Progress,
) -> RecoveryReport:
    notes = (plan.note,) if plan.note else ()
    if options.get("load"):
        verification, more = load_items(p, plan, items, options, scratch=scratch, progress=progress)
        size = 0
    elif target is None:
        raise Refused("items are not recovered in place", code="no-item-recovery", hint="give --target FILE or --load")
    else:
        size, verification, more = dump_items(p, plan, items, target, scratch=scratch, progress=progress)
    paths = () if target is None else (target,)
    seconds = time.monotonic() - started
    return RecoveryReport(plan.point, plan.upto, plan.time_ns, paths, size, seconds, verification, (*notes, *more))


def _recover_directory(
    p: Protected,
    plan: RecoveryPlan,
    target: Path | None,
    *,
    yes: bool,
    verify: Verify,
    options: Mapping[str, str],
    started: float,
    progress: Progress,
) -> RecoveryReport:
    if "delta" in options and target is not None:
        done = recover_onto(p, plan, target, confirmed=yes, verify=verify, options=options, progress=progress)
    else:
        done = recover_directory(p, plan, target, verify=verify, options=options, progress=progress)
    started_notes = (
        p.workload.start(done.paths[0]) if "start" in options and isinstance(p.workload, StartedWorkload) else ()
    )
    return RecoveryReport(
        plan.point,
        done.arranged.position or plan.upto,
        done.arranged.time_ns or plan.time_ns,
        done.paths,
        done.size,
        time.monotonic() - started,
        done.verification,
        ((plan.note,) if plan.note else ()) + done.arranged.notes + started_notes,
    )


# --- databases ---------------------------------------------------------------------------------------


def _recover_image(
    p: Protected,
    plan: RecoveryPlan,
    finals: Mapping[str, Path],
    *,
    in_place: bool,
    verify: Verify,
    notes: list[str],
    progress: Progress,
) -> tuple[int, Verification | None]:
    workload = image_workload(p)
    partial = {name: partial_of(final) for name, final in finals.items()}
    with clear_of_partial(p, list(partial.values())):
        restore_image(p, plan, partial, progress)
        verification = None if verify == "none" else workload.verify(partial, verify == "thorough")
        if verification is not None and not verification.passed:
            raise Damaged(
                f"what was recovered of {p.source.name!r} does not pass {verification.means}: "
                + "; ".join(verification.details[:3]),
                code="verification-failed",
                hint="recover another point; '--verify none' recovers it as it is",
            )
        size = sum(path.stat().st_size for path in partial.values())
        for path in partial.values():
            sync_path(path)
        for name, final in finals.items():
            if in_place:
                _keep_old(p, final, partial[name], notes)
                partial[name].replace(final)
            else:
                rename_new(partial[name], final)
            remove(p, partial[name])
            sync_path(final.parent)
    return size, verification


def _refuse_targets(p: Protected, finals: Sequence[Path], *, in_place: bool) -> None:
    if in_place:
        return
    for final in finals:
        refuse_source(p, final)
        refuse_existing(final)
        for companion in companions_of(p, final):
            refuse_existing(companion)


def _final_paths(p: Protected, plan: RecoveryPlan, where: Path) -> dict[str, Path]:
    """Where the files go in the end.

    The workload is asked for the partial names, beside which there is nothing; beside a source that is
    replaced in place lies its own log.
    """
    asked = partial_of(where)
    remove(p, asked)
    paths = image_workload(p).target_paths([file.name for file in plan.point.files], asked)
    return {name: path.with_name(path.name.replace(PARTIAL, "")) for name, path in paths.items()}


def _keep_old(p: Protected, final: Path, partial: Path, notes: list[str]) -> None:
    """Keep what is replaced under another name, and give the new file its owner and mode.

    Companions go first: a crash must never leave the recovered file beside a log that is not its own.
    """
    if not os.path.lexists(final):
        for companion in companions_of(p, final):
            if os.path.lexists(companion):
                companion.rename(kept_name(companion))
        return
    kept = kept_name(final)
    status = final.stat()
    partial.chmod(status.st_mode & 0o7777)
    if (status.st_uid, status.st_gid) != (os.getuid(), os.getgid()):
        os.chown(partial, status.st_uid, status.st_gid)
    os.link(final, kept)
    for companion, beside in zip(companions_of(p, final), companions_of(p, kept), strict=True):
        if os.path.lexists(companion):
            companion.rename(beside)
    sync_path(final.parent)
    notes.append(f"the file that was there is kept as {kept}")


# --- folders -----------------------------------------------------------------------------------------


def _recover_tree(
    p: Protected,
    plan: RecoveryPlan,
    final: Path,
    items: Sequence[str],
    *,
    in_place: bool,
    notes: list[str],
    progress: Progress,
) -> tuple[int, Verification]:
    if plan.point.tree is None:
        raise Damaged(f"recovery point {plan.point.number} of {p.source.name!r} holds no tree", code="damaged-record")
    if in_place and items:
        raise Refused(
            "items of a folder are not recovered in place, since that would replace the whole folder by them",
            code="no-item-recovery",
            hint="recover them with --target and move them to their place",
        )
    _refuse_targets(p, [final], in_place=in_place)
    partial = partial_of(final)
    with clear_of_partial(p, [partial]):
        report = restore_tree(
            load_root(plan.point.tree, p.vault),
            p.vault,
            partial,
            items=items,
            progress=lambda done: progress("restoring", done, 0 if items else plan.point.size),
        )
        if in_place and os.path.lexists(final):
            if report.damaged:
                raise Damaged(
                    f"what was recovered of {p.source.name!r} is not whole ({report.damaged[0]}); "
                    "the folder was left as it is",
                    code="damaged-content",
                    hint="recover to another place with --target to get what there is",
                )
            kept = kept_name(final)
            final.rename(kept)
            notes.append(f"the folder that was there is kept as {kept}")
        partial.rename(final)
        sync_path(final.parent)
    notes.extend([*report.gaps, *report.damaged, *report.notes])
    means = "every chunk authenticated while it was read"
    return report.size, Verification(not report.damaged, means, report.damaged)
