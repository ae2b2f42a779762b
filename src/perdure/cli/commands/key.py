"""``perdure key list``, ``passphrase``, ``add-file``, ``recovery``, ``remove`` and ``rotate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perdure.cli.documents import plain
from perdure.cli.key_files import refuse_inside_pool, write_key_file
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.passphrase import as_secret, new_passphrase, read_passphrase
from perdure.cli.session import Session
from perdure.cli.wording import count, table
from perdure.model.errors import BadInput, Partial
from perdure.model.moments import moment_text

if TYPE_CHECKING:
    from perdure.repository.key_changes import KeyChange, PoolKeys, SlotInfo
    from perdure.repository.keys import RecoveryKey

__all__ = ["add_file", "list_", "passphrase", "recovery", "remove", "rotate"]

_NOUNS = {"passphrase": "passphrase", "recovery": "recovery key", "keyfile": "key file"}


def list_(path: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show every way that a pool opens, without opening it.

    For example:

        perdure key list /mnt/backup/pool

    Args:
        path: The directory that the pool lies in.
    """
    from perdure.repository.descriptor import read_descriptor
    from perdure.repository.key_changes import list_slots
    from perdure.storage.opening import open_storage

    storage = open_storage(path)
    pool_id = read_descriptor(storage).id
    slots, epochs = list_slots(storage)
    if common.json:
        print_json({"pool": {"id": pool_id, "url": storage.url}, "key_epochs": epochs, "slots": plain(slots)})
        return 0
    rows = [
        (slot.id, _NOUNS.get(slot.kind, slot.kind), moment_text(slot.made_ns) if slot.made_ns else "", _state(slot))
        for slot in slots
    ]
    print_lines(table(("SLOT", "OPENS WITH", "MADE", "STATE"), rows))
    print_lines(["", f"{count(epochs, 'master key')}: new data is sealed with the newest."])
    return 0


def passphrase(
    path: str, /, *, new_passphrase_file: Path | None = None, common: CommonOptions = DEFAULT_OPTIONS
) -> int:
    """Give a pool a new passphrase in place of the one that it has.

    No data is written anew, and key files and the recovery key go on working. The pool is opened with the passphrase
    that it has, or with its recovery key or a key file when that is lost. A new passphrase is asked for twice.

    For example:

        perdure key passphrase /mnt/backup/pool
        perdure key passphrase /mnt/backup/pool --passphrase-file /root/recovery-key
        perdure key passphrase /mnt/backup/pool --new-passphrase-file /root/new-passphrase

    Args:
        path: The directory that the pool lies in.
        new_passphrase_file: Read the new passphrase from the first line of this file.
    """
    from perdure.repository.keys import Passphrase

    with Session(common) as session:
        keys = session.keys_at(path)
        text = new_passphrase(
            new_passphrase_file,
            what=f"the storage pool {keys.storage.url}",
            undone="the pool keeps its passphrase",
            environment=False,
        )
        change = keys.change_passphrase(Passphrase(text))
    return _report(keys, change, "The pool has a new passphrase.", common)


def add_file(path: str, file: Path, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Make a key file that opens a pool, for runs that nobody attends.

    The file is new, and only its owner may read it. Name it with --passphrase-file or in PERDURE_PASSPHRASE_FILE.
    Keep it away from the pool's disk: whoever has both can read the pool.

    For example:

        perdure key add-file /mnt/backup/pool /etc/perdure/pool.key

    Args:
        path: The directory that the pool lies in.
        file: The file to make; it must not exist yet.
    """
    from perdure.repository.keys import KeyFile

    with Session(common) as session:
        keys = session.keys_at(path)
        made, key_file = file.expanduser().absolute(), KeyFile.random()
        refuse_inside_pool(made, keys.storage)
        # The file comes first: a slot whose key file was lost on the way would open with nothing.
        write_key_file(made, key_file, keys.pool.hex())
        try:
            change = keys.add_key_file(key_file)
        except Partial:
            raise
        except BaseException:
            made.unlink()
            raise
    slot = change.added[0].id
    return _report(keys, change, f"Made key file {made}; it opens the pool by slot {slot}.", common, file=str(made))


def recovery(path: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Make a new recovery key in place of the one that a pool has.

    It is shown once and kept nowhere: write it down. It is shown before the earlier one ceases to work, so that an
    interruption cannot lose both; it counts when the command has ended with status 0.

    For example:

        perdure key recovery /mnt/backup/pool

    Args:
        path: The directory that the pool lies in.
    """
    from perdure.repository.keys import RecoveryKey

    with Session(common) as session:
        keys, new = session.keys_at(path), RecoveryKey.random()
        change = keys.replace_recovery_key(new, lambda coming: _show(keys, coming, new, common))
    return 0 if common.json else _report(keys, change, "The recovery key above opens the pool now.", common)


def remove(path: str, slot: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Let a passphrase, key file or recovery key open a pool no longer.

    What the pool is opened with for this command stays, so that a way in that works is always left.

    For example:

        perdure key list /mnt/backup/pool
        perdure key remove /mnt/backup/pool 1a2b3c4d

    Args:
        path: The directory that the pool lies in.
        slot: Which one, as 'perdure key list' shows it.
    """
    with Session(common) as session:
        keys = session.keys_at(path)
        change = keys.remove(slot)
    return _report(keys, change, f"Removed key slot {slot}.", common)


def rotate(
    path: str,
    /,
    *,
    keep: Annotated[tuple[Path, ...], Parameter(metavar="FILE")] = (),
    yes: bool = False,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Make a new master key, which everything written from now on is sealed with.

    What was written before stays readable, and stays under the earlier key: who had that key can still read it. The
    pool makes a new recovery key, shown once, and opens from then on with it, with what it is opened with now, and
    with what --keep names. All else opens it no longer; when that would hit a passphrase or a key file, --yes is
    needed. Programs that watch should be started anew afterwards, so that they use the new key.

    For example:

        perdure key rotate /mnt/backup/pool
        perdure key rotate /mnt/backup/pool --keep /etc/perdure/pool.key

    Args:
        path: The directory that the pool lies in.
        keep: A file with another passphrase, or a key file, that shall go on opening the pool; may be given several
            times.
        yes: Confirm that passphrases and key files that were not given open the pool no longer.
    """
    from perdure.repository.keys import RecoveryKey

    with Session(common) as session:
        keys, new = session.keys_at(path), RecoveryKey.random()
        others = [as_secret(read_passphrase(file)) for file in keep]
        if any(secret.kind == RecoveryKey.kind for secret in others):
            raise BadInput(
                "a rotation always makes a new recovery key; an earlier one cannot be kept",
                hint="name only passphrase files and key files with --keep",
            )
        change = keys.rotate(new, others, lambda coming: _show(keys, coming, new, common), yes=yes)
    said = f"The pool has master key {change.epochs} now. The recovery key above is in force."
    return 0 if common.json else _report(keys, change, said, common)


def _show(keys: PoolKeys, change: KeyChange, new: RecoveryKey, common: CommonOptions) -> None:
    """Show a recovery key, before the change that lets it count."""
    if common.json:
        print_json({**_document(keys, change), "recovery_key": new.text()})
        return
    print_lines(
        [
            "New recovery key (shown this once, kept nowhere):",
            "",
            f"    {new.text()}",
            "",
            "Write it down and keep it away from this machine. Whoever has it can read the pool.",
            "It counts when this command ends without an error.",
            "",
        ]
    )


def _report(keys: PoolKeys, change: KeyChange, said: str, common: CommonOptions, **more: str) -> int:
    if common.json:
        print_json({**_document(keys, change), **more})
        return 0
    print_lines([said])
    if change.dropped:
        print_lines([f"No longer opens the pool: {_named(change.dropped)}."])
        print_lines(["Copies and snapshots of the pool from before still open with it."])
    return 0


def _document(keys: PoolKeys, change: KeyChange) -> dict[str, Any]:
    return {
        "pool": {"id": keys.pool.hex(), "url": keys.storage.url},
        "added": plain(change.added),
        "dropped": plain(change.dropped),
        "key_epochs": change.epochs,
    }


def _named(slots: Sequence[SlotInfo]) -> str:
    return ", ".join(f"{_NOUNS.get(slot.kind, slot.kind)} {slot.id}" for slot in slots)


def _state(slot: SlotInfo) -> str:
    return "damaged, opens nothing" if slot.damaged else "sound"
