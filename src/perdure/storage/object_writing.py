"""Writing to and removing from an object store.

An object is written in one conditional request (``If-None-Match: *``) and carries a random mark of the call that wrote
it as metadata. When the answer to a request was lost and its repetition meets an existing object, the mark tells
whether that is the call's own. Where a store drops metadata, the content is compared instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError

from perdure.storage.contract import Buffer, ObjectExists
from perdure.storage.object_calls import Attempt, Calls, wait_for
from perdure.storage.object_connection import ObjectStore

__all__ = ["ObjectWriter"]

_MARK = "perduremark"
"""Metadata key of the mark; Azure allows letters and digits only."""

_DELETED_AT_ONCE = {"s3": 1000, "azure": 256}


class ObjectWriter:
    """Writes and removes objects, whatever their names mean.

    Args:
        store: The client, which must not repeat requests by itself.
        calls: How calls are made.
    """

    def __init__(self, store: ObjectStore, calls: Calls) -> None:
        self._store = store
        self._calls = calls
        self._place = calls.place

    async def created(self, name: str, content: Buffer) -> None:
        """Write an object if there is none of its name, however often that has to be asked for."""
        mark = secrets.token_hex(16)

        async def attempt(this: Attempt) -> None:
            try:
                await obstore.put_async(
                    self._store, name, content, mode="create", use_multipart=False, attributes={_MARK: mark}
                )
            except AlreadyExistsError:
                # S3 also says so while another request for the name is under way that may yet fail: then there is
                # nothing to look at, and the failure of looking makes this a failed attempt.
                if not await self._is_own(name, content, mark, repeated=this.number > 0):
                    raise ObjectExists(
                        f"{name} exists already in the {self._place.words}; objects are never overwritten"
                    ) from None

        await self._calls.call(f"write {name}", attempt, size=len(content), writing=True)

    async def _is_own(self, name: str, content: Buffer, mark: str, *, repeated: bool) -> bool:
        """Whether the object of this name was written by an earlier attempt whose answer was lost."""
        try:
            found = await obstore.get_async(self._store, name, options={"head": True})
        except FileNotFoundError as error:
            raise GenericError("the object exists and does not exist") from error
        written = found.attributes.get(_MARK)
        if written is not None or not repeated or found.meta["size"] != len(content):
            return written == mark
        there = await obstore.get_async(self._store, name)
        return bytes(await there.bytes_async()) == bytes(content)

    async def _overwritten(self, name: str, content: bytes) -> None:
        async def attempt(_: Attempt) -> None:
            await obstore.put_async(self._store, name, content, use_multipart=False)

        await self._calls.call(f"write {name}", attempt, size=len(content), writing=True)

    def overwrite(self, name: str, content: bytes) -> None:
        """Write an object, whether it is there or not."""
        wait_for(self._calls.start(self._overwritten(name, content)))

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects, whether they are there or not."""
        step = _DELETED_AT_ONCE[self._place.kind]
        for at in range(0, len(names), step):
            batch = list(names[at : at + step])

            async def attempt(_: Attempt, batch: list[str] = batch) -> None:
                try:
                    await obstore.delete_async(self._store, batch)
                except FileNotFoundError:
                    # Azure says so for the first one that was not there, and nothing about the others.
                    await self._remove_singly(batch)

            what = f"delete {batch[0]}" if len(batch) == 1 else f"delete {len(batch)} objects"
            self._calls.run(what, attempt, writing=True)

    async def _remove_singly(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                await obstore.delete_async(self._store, name)
            except FileNotFoundError as error:
                if "container" in str(error).lower():
                    raise
