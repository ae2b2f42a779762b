"""One run of a command: the home, the pools it opened, and the passphrase it asked for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from perdure.cli.options import CommonOptions
from perdure.cli.passphrase import as_secret, read_passphrase
from perdure.model.errors import NotFound
from perdure.protection.home import Home, KnownSource

if TYPE_CHECKING:
    from perdure.protection.protected import Protected
    from perdure.repository.key_changes import PoolKeys
    from perdure.repository.keys import Secret
    from perdure.repository.pool import Pool
    from perdure.storage.contract import Storage

__all__ = ["Session"]


class Session:
    """Opens pools and sources for a command, each once, and closes them when the command ends."""

    def __init__(self, options: CommonOptions) -> None:
        self.options = options
        self.home = Home.from_environment()
        self._closing = contextlib.ExitStack()
        self._pools: dict[str, Pool] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def pool_at(self, url: str) -> Pool:
        """Open the pool at a path, and remember where it lies.

        Raises:
            PerdureError: It is not there, or the passphrase does not open it.
        """
        from perdure.repository.descriptor import read_descriptor
        from perdure.repository.opening import open_pool
        from perdure.storage.opening import open_storage

        storage = open_storage(url)
        pool_id = read_descriptor(storage).id
        if pool_id not in self._pools:
            secret = self._secret(storage)
            pool = self._closing.enter_context(open_pool(storage, secret, self.home.cache_dir(pool_id)))
            self.home.remember_pool(pool_id, storage.url)
            self._pools[pool_id] = pool
        return self._pools[pool_id]

    def keys_at(self, url: str) -> PoolKeys:
        """Open the keys of the pool at a path, to change them.

        Raises:
            PerdureError: It is not there, or the passphrase does not open it.
        """
        from perdure.repository.descriptor import read_descriptor
        from perdure.repository.key_changes import PoolKeys
        from perdure.storage.opening import open_storage

        storage = open_storage(url)
        pool_id = bytes.fromhex(read_descriptor(storage).id)
        return PoolKeys.open(storage, self._secret(storage), pool_id)

    def _secret(self, storage: Storage) -> Secret:
        return as_secret(read_passphrase(self.options.passphrase_file, what=f"the storage pool {storage.url}"))

    def pool(self, pool_id: str) -> Pool:
        """Open a pool that this home knows.

        Raises:
            NotFound: The home does not know where it lies.
        """
        for known in self.home.pools():
            if known.id == pool_id:
                return self.pool_at(known.url)
        raise NotFound(
            f"it is not known here where storage pool {pool_id} lies",
            code="pool-missing",
            hint="tell it with: perdure pool open PATH",
        )

    def protected(self, name: str) -> Protected:
        """A data source by the name that people call it.

        Raises:
            NotFound: No source has this name.
        """
        return self.protected_source(self.home.find_source(name))

    def protected_source(self, known: KnownSource) -> Protected:
        """A data source that this home knows, with its pool open."""
        from perdure.protection.protected import Protected, workload_for

        pool = self.pool(known.pool_id)
        for source in pool.sources():
            if source.id == known.id:
                return Protected(self.home, pool, source, workload_for(source.workload))
        raise NotFound(
            f"the storage pool {pool.storage.url} no longer lists the data source {known.name!r}",
            code="source-not-found",
            hint=f"check the pool with: perdure verify {pool.storage.url}",
        )
