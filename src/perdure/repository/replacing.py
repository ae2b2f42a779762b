"""Replacing a damaged object by a good one, so that a crash at any moment leaves a good copy.

Objects never change and a name is given once, so the damaged object has to be deleted before the good one can take
its name. The good bytes are therefore first written under ``heal/`` and the object's name; they stay until the object
is in its place, and :func:`finish_replacements` goes on after a crash. Garbage collection stands still while there is
anything below ``heal/``, since a record may be missing from its place for that moment. One process heals at a time.
"""

from __future__ import annotations

import contextlib

from perdure.storage.contract import ObjectExists, ObjectLocked, ObjectMissing, Storage

__all__ = ["RESCUED", "finish_replacements", "replace_object", "rescued_name"]

RESCUED = "heal"


def rescued_name(name: str) -> str:
    """Where the good bytes of an object wait."""
    return f"{RESCUED}/{name}"


def replace_object(storage: Storage, name: str, content: bytes) -> None:
    """Put these bytes in the place of a damaged or missing object; durable on return.

    Raises:
        ObjectLocked: The damaged object is locked; nothing was changed.
    """
    rescued = rescued_name(name)
    try:
        storage.create(rescued, content)
    except ObjectExists:
        if storage.read(rescued) != content:
            storage.delete(rescued)
            storage.create(rescued, content)
    put_in_place(storage, name)


def put_in_place(storage: Storage, name: str) -> None:
    """Move the rescued bytes of an object to its place.

    Raises:
        ObjectLocked: What is there is locked.
    """
    content = storage.read(rescued_name(name))
    try:
        storage.delete(name)
    except ObjectLocked:
        storage.delete(rescued_name(name))
        raise
    # Another process that heals the same object writes the same.
    with contextlib.suppress(ObjectExists):
        storage.create(name, content)
    storage.delete(rescued_name(name))


def finish_replacements(storage: Storage) -> list[str]:
    """Finish what was cut off; returns the names of the objects."""
    finished = []
    for listed in list(storage.list(RESCUED)):
        name = listed.name.removeprefix(f"{RESCUED}/")
        with contextlib.suppress(ObjectMissing, ObjectLocked):
            if _still_wanted(storage, name):
                put_in_place(storage, name)
                finished.append(name)
            else:
                storage.delete(listed.name)
    return finished


def _still_wanted(storage: Storage, name: str) -> bool:
    """Whether an object that has a twin was not removed, with its twin, since its healing was cut off."""
    if not name.startswith(("keys/", "sources/")):
        return True
    twin = name.removesuffix(".copy") if name.endswith(".copy") else f"{name}.copy"
    for each in (name, twin):
        with contextlib.suppress(ObjectMissing):
            storage.size(each)
            return True
    return False
