"""A pool on an object store: S3 and its kin, and Azure Blob Storage, through obstore.

An object is uploaded in one conditional request (``If-None-Match: *``), which is its commit: the store gives the
name to one writer only, and shows the object whole or not at all. Why not a multipart upload while it is written:
S3 can complete one conditionally, but obstore cannot ask for that (its multipart upload always overwrites), and
Azure's block list has the same gap there; uploading under another name and copying would cost a copy per pack and
leave garbage where it is interrupted. So an object under construction waits in :mod:`perdure.storage.object_spool`,
and publishing uploads it. The stores take 5 GB in one request; perdure's packs have about 64 MiB.

Listings are sorted here: S3 and Azure list by bytes of the whole name, others (SeaweedFS) component by component.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import obstore
from obstore.exceptions import GenericError

from perdure.model.errors import BadInput, PerdureError
from perdure.storage.contract import (
    Buffer,
    Capabilities,
    Lease,
    LeaseInfo,
    ObjectExists,
    ObjectInfo,
    Pending,
    Staged,
    Storage,
)
from perdure.storage.names import LEASES, check_name
from perdure.storage.object_calls import Attempt, Calls, Patience, wait_for
from perdure.storage.object_connection import connect, settled
from perdure.storage.object_errors import beyond_the_end
from perdure.storage.object_leases import ObjectLeases
from perdure.storage.object_locking import NoLocking, ObjectLocking, locking_of
from perdure.storage.object_spool import SpooledObject
from perdure.storage.object_urls import ObjectPlace
from perdure.storage.object_writing import ObjectWriter
from perdure.storage.ranges import Span, spans_of

__all__ = ["ObjectStorage"]

_UPLOADS = 4
"""Publications that are uploaded at a time; a further one waits, so that the spool does not grow without end."""

_PARALLEL_READS = 8
_PATIENCE = Patience()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ObjectStorage:
    """Objects below a prefix of a bucket or container. Nothing is sent before the first call.

    Args:
        place: Where.
        patience: How long calls may take.

    Raises:
        BadInput: The place is incomplete.
        StorageFailed: The credentials cannot be read.
    """

    def __init__(self, place: ObjectPlace, *, patience: Patience = _PATIENCE) -> None:
        self.place = settled(place)
        self._calls = Calls(self.place, patience)
        self._store = connect(self.place)
        # A long listing is many requests: one that fails is repeated by itself, not from the first page.
        self._listing_store = connect(self.place, retries=5)
        self._writer = ObjectWriter(self._store, self._calls)
        self._uploading = threading.BoundedSemaphore(_UPLOADS)
        self._leases = ObjectLeases(self._writer.overwrite, self._writer.remove, self._listed)
        self._locking_lock = threading.Lock()
        self._locking_found: ObjectLocking | NoLocking | None = None

    @property
    def url(self) -> str:
        return self.place.url

    @property
    def capabilities(self) -> Capabilities:
        immutable = self.place.lock is not None and isinstance(self._locking, ObjectLocking)
        return Capabilities(local=False, liveness=False, immutable=immutable)

    # --- opening ---

    def look(self) -> None:
        """See whether the bucket is there and lets us in, without much patience.

        Raises:
            NotFound: There is no such bucket (``bucket-missing``).
            StorageFailed: It cannot be reached, or refuses the credentials.
        """
        patience = self._calls.patience
        short = Patience(min(10.0, patience.answer_s), min(15.0, patience.total_s), patience.slowest)

        async def first_page(_: Attempt) -> None:
            async for _page in obstore.list(self._store, chunk_size=1):
                return

        Calls(self.place, short).run("open the storage pool", first_page)

    def prove_conditional(self) -> None:
        """See whether the store gives a name to one writer only; a pool on one that does not would lose data.

        Raises:
            BadInput: It does not (``unsupported-storage``).
            Refused: ``lock=`` is asked for and cannot be had (``no-immutability``).
        """
        if self.place.lock is not None and isinstance(self._locking, NoLocking):
            raise self._locking.refusal(f"make a pool with lock={self.place.lock}")
        name = f"{LEASES}/.probe-{secrets.token_hex(8)}"
        self._create(name, b"first")
        try:
            self._create(name, b"second")
        except ObjectExists:
            return
        finally:
            with contextlib.suppress(PerdureError):
                self._writer.remove([name])
        raise BadInput(
            f"the {self.place.words} lets one object be written over another although it was asked not to "
            "(If-None-Match), so perdure cannot keep a pool there",
            code="unsupported-storage",
            hint="use a store with conditional writes: Amazon S3, Azure Blob Storage, SeaweedFS, MinIO, Ceph",
        )

    # --- writing ---

    def stage(self) -> Staged:
        return SpooledObject()

    def publish(self, staged: Staged, name: str) -> Pending:
        assert isinstance(staged, SpooledObject)
        check_name(name)
        self._uploading.acquire()
        try:
            publication = self._calls.start(self._uploaded(staged, name))
        except BaseException:
            self._uploading.release()
            raise
        publication.add_done_callback(lambda _: self._uploading.release())
        return publication

    def barrier(self, pending: Sequence[Pending]) -> None:
        failure: BaseException | None = None
        for publication in pending:
            assert isinstance(publication, Future)
            failure = failure or publication.exception()
        if failure is not None:
            raise failure

    def commit(self, staged: Staged, name: str) -> None:
        assert isinstance(staged, SpooledObject)
        check_name(name)
        wait_for(self._calls.start(self._uploaded(staged, name)))

    def create(self, name: str, *buffers: Buffer) -> None:
        check_name(name)
        self._create(name, b"".join(buffers))

    def _create(self, name: str, content: bytes) -> None:
        wait_for(self._calls.start(self._writer.created(name, content)))

    async def _uploaded(self, staged: SpooledObject, name: str) -> None:
        try:
            await self._writer.created(name, staged.content())
        finally:
            staged.discard()

    def delete(self, *names: str) -> None:
        for name in names:
            check_name(name)
        if not names:
            return
        locking = self._locking if self.place.kind == "s3" else None
        if isinstance(locking, ObjectLocking):
            top = f"{self.place.prefix}/" if self.place.prefix else ""
            locking.delete([top + name for name in names])
        elif isinstance(locking, NoLocking) and locking.unsure and self.place.lock is not None:
            raise locking.refusal(f"delete objects of a pool with lock={self.place.lock}")
        else:
            self._writer.remove(names)

    def retain(self, name: str, until_ns: int) -> None:
        check_name(name)
        if self.place.lock is None:
            hint = "open the pool with ?lock=compliance in its URL, in a bucket with object lock"
            raise NoLocking("its URL does not ask for object lock", hint).refusal(f"lock {name}")
        if isinstance(self._locking, NoLocking):
            raise self._locking.refusal(f"lock {name}")
        top = f"{self.place.prefix}/" if self.place.prefix else ""
        self._locking.retain(top + name, until_ns, name)

    @property
    def _locking(self) -> ObjectLocking | NoLocking:
        with self._locking_lock:
            if self._locking_found is None:
                self._locking_found = locking_of(self.place, self._calls.patience)
            return self._locking_found

    # --- leases ---

    def lease(self, name: str) -> Lease:
        return self._leases.take(name)

    def leases(self) -> Sequence[LeaseInfo]:
        return self._leases.all()

    # --- reading ---

    def read(self, name: str) -> bytes:
        check_name(name)

        async def attempt(this: Attempt) -> bytes:
            found = await obstore.get_async(self._store, name)
            this.expect(found.meta["size"])
            return bytes(await found.bytes_async())

        return self._calls.run(f"read {name}", attempt)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self.read_ranges(name, [(offset, length)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges with few requests.

        obstore's own ``get_ranges`` is not used: beyond the object's end it ends in a panic (0.12.1).
        """
        check_name(name)
        spans = spans_of(ranges)
        if not spans:
            self.size(name)
            return [b""] * len(ranges)
        gate = asyncio.Semaphore(_PARALLEL_READS)

        async def read(span: Span) -> bytes:
            async with gate:
                return await self._calls.call(
                    f"read {name}", lambda _: self._range(name, span), size=span.end - span.start
                )

        async def read_all() -> list[bytes]:
            return await asyncio.gather(*map(read, spans))

        data = wait_for(self._calls.start(read_all()))
        found = [b""] * len(ranges)
        for span, content in zip(spans, data, strict=True):
            for number in span.numbers:
                offset, length = ranges[number]
                at = offset - span.start
                found[number] = content if (at, length) == (0, len(content)) else content[at : at + length]
        return found

    async def _range(self, name: str, span: Span) -> bytes:
        try:
            return bytes(await obstore.get_range_async(self._store, name, start=span.start, end=span.end))
        except GenericError as error:
            if beyond_the_end(error):
                return b""
            raise

    def size(self, name: str) -> int:
        check_name(name)

        async def attempt(_: Attempt) -> int:
            return (await obstore.head_async(self._store, name))["size"]

        return self._calls.run(f"look at {name}", attempt)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        _ = check_name(prefix) if prefix else ()
        below = f"{LEASES}/"
        yield from (found for found in self._listed(prefix) if not found.name.startswith(below))

    def _listed(self, prefix: str) -> Sequence[ObjectInfo]:
        found: dict[str, ObjectInfo] = {}

        async def attempt(this: Attempt) -> None:
            found.clear()
            async for page in obstore.list(self._listing_store, prefix or None, chunk_size=1000):
                this.expect(0)
                for meta in page:
                    modified_ns = (meta["last_modified"] - _EPOCH) // timedelta(microseconds=1) * 1000
                    found[meta["path"]] = ObjectInfo(meta["path"], meta["size"], modified_ns)

        self._calls.run(f"list {prefix or 'the storage pool'}", attempt)
        return [found[name] for name in sorted(found)]


_check: type[Storage] = ObjectStorage
