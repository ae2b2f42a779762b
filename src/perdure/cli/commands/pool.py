"""``perdure pool create``, ``perdure pool open`` and ``perdure pool info``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines, remark
from perdure.cli.passphrase import new_passphrase
from perdure.cli.session import Session
from perdure.cli.wording import count, size
from perdure.model.moments import moment_text, rfc3339

if TYPE_CHECKING:
    from perdure.model.points import DataSource
    from perdure.repository.pool import PoolInfo

__all__ = ["create", "info", "open_"]


def create(path: str, /, *, endpoint: str | None = None, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Make a storage pool in a new or empty directory, or below an unused prefix of an object store.

    It shows the recovery key, which opens the pool when the passphrase is lost. It is shown once and kept nowhere:
    write it down.

    For example:

        perdure pool create /mnt/backup/pool
        perdure pool create /mnt/backup/pool --passphrase-file /root/passphrase
        perdure pool create s3://bucket/pool
        perdure pool create s3://bucket/pool --endpoint https://s3.example.org
        perdure pool create azure://container/pool?account=name

    Args:
        path: The directory that the pool shall lie in, or the URL of an object store.
        endpoint: The URL of an object store's server, if it is not the provider's own; it becomes part of the URL.
    """
    with Session(common) as session:
        passphrase = new_passphrase(common.passphrase_file)

        from perdure.repository.opening import create_pool
        from perdure.storage.opening import open_storage, with_endpoint

        storage = open_storage(with_endpoint(path, endpoint), create=True)
        with tempfile.TemporaryDirectory(prefix="perdure-") as cache:
            # The pool's id, which names its cache, is not known before it exists.
            made, recovery_key = create_pool(storage, passphrase, Path(cache))
            session.home.remember_pool(made.id, storage.url)
            made.close()
    if common.json:
        print_json({"pool": {"id": made.id, "url": storage.url}, "recovery_key": recovery_key})
        return 0
    print_lines(
        [
            f"Made storage pool {made.id} in {storage.url}.",
            "",
            "Recovery key (shown this once, kept nowhere):",
            "",
            f"    {recovery_key}",
            "",
            "Write it down and keep it away from this machine. Whoever has it can read the pool.",
            "If both the passphrase and the recovery key are lost, nobody can read the pool again.",
        ]
    )
    return 0


def open_(
    path: str,
    /,
    *,
    endpoint: str | None = None,
    take_over: bool = False,
    common: CommonOptions = DEFAULT_OPTIONS,
) -> int:
    """Make the data sources of an existing pool known on this machine.

    Use it after the loss of a machine, or when a pool has moved: every data source that the pool holds can then be
    recovered by name. A data source that this machine protects in another pool stays protected there: what this pool
    holds of it is a second copy, which the option --pool of points, browse and recover reads.

    For example:

        perdure pool open /mnt/backup/pool
        perdure pool open s3://bucket/pool --endpoint https://s3.example.org
        perdure pool open /mnt/offsite/pool --take-over

    Args:
        path: The directory that the pool lies in, or its URL.
        endpoint: The URL of an object store's server, if it is not the provider's own.
        take_over: The pool takes the place of the one that its data sources were protected in until now, because that
            one is lost.
    """
    from perdure.storage.opening import with_endpoint

    with Session(common) as session:
        opened = session.pool_at(with_endpoint(path, endpoint))
        sources = opened.sources()
        elsewhere = {} if take_over else _protected_elsewhere(session, opened.id)
        for source in sources:
            if source.id not in elsewhere:
                session.home.remember_source(source, opened.id)
                if opened.points(source.id):
                    session.home.note_found(source.id, opened.storage.url, time.time_ns())
        for damage in opened.damage:
            remark(f"warning: {damage.message}")
        document = {
            "pool": {"id": opened.id, "url": opened.storage.url},
            "sources": [
                {
                    "id": source.id,
                    "name": source.name,
                    "workload": source.workload,
                    "location": source.location,
                    "protected_in": elsewhere.get(source.id, opened.storage.url),
                }
                for source in sources
            ],
            "damage": [damage.message for damage in opened.damage],
        }
        if common.json:
            print_json(document)
        else:
            held = count(len(sources), "data source")
            print_lines([f"Opened storage pool {opened.id} in {opened.storage.url}: {held}."])
            print_lines(
                line
                for source in sources
                for line in _source_lines(source, elsewhere.get(source.id), opened.storage.url)
            )
        return 7 if opened.damage else 0


def _protected_elsewhere(session: Session, pool_id: str) -> dict[str, str]:
    """Where the data sources lie that this machine protects in other pools, by their ids."""
    urls = {known.id: known.url for known in session.home.pools()}
    others = (known for known in session.home.sources() if known.pool_id != pool_id)
    return {known.id: urls.get(known.pool_id, known.pool_id) for known in others}


def _source_lines(source: DataSource, elsewhere: str | None, url: str) -> list[str]:
    line = f"  {source.name}  {source.workload}:{source.location}"
    if elsewhere is None:
        return [line]
    return [
        f"{line}  (a second copy; this machine protects it in {elsewhere})",
        f"    Recover from the copy with: perdure recover {source.name} --to latest --target PATH --pool {url}",
        f"    If {elsewhere} is lost, protect it here from now on with: perdure pool open {url} --take-over",
    ]


def info(path: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show what a pool holds and how large it is.

    For example:

        perdure pool info /mnt/backup/pool

    Args:
        path: The directory that the pool lies in, or its URL.
    """
    with Session(common) as session:
        opened = session.pool_at(path)
        found, url = opened.info(), opened.storage.url
    if common.json:
        print_json({"pool": _document(found, url)})
    else:
        print_lines(_lines(found, url))
    return 0


def _document(found: PoolInfo, url: str) -> dict[str, Any]:
    return {
        "id": found.id,
        "url": url,
        "format_version": found.format_version,
        "created": rfc3339(found.created_ns),
        "packs": found.packs,
        "bytes": found.bytes,
        "chunks": found.chunks,
        "sources": found.sources,
        "points": found.points,
    }


def _lines(found: PoolInfo, url: str) -> list[str]:
    return [
        f"Storage pool     {found.id}",
        f"Where            {url}",
        f"Format           {found.format_version}",
        f"Made             {moment_text(found.created_ns)}",
        f"Size             {size(found.bytes)} in {count(found.packs, 'pack')}, {count(found.chunks, 'chunk')}",
        f"Data sources     {found.sources}",
        f"Recovery points  {found.points}",
    ]
