"""One run of a command: the home, the pools it opened, and the passphrase it asked for."""

from __future__ import annotations

import contextlib
from pathlib import Path
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

__all__ = ["Session"]


class Session:
    """Opens pools and sources for a command, each once, and closes them when the command ends."""

    def __init__(self, options: CommonOptions, home: Home | None = None) -> None:
        self.options = options
        self.home = home or Home.from_environment()
        self._closing = contextlib.ExitStack()
        self._pools: dict[str, Pool] = {}
        self._secrets: dict[Path | None, Secret] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def pool_at(self, url: str, *, passphrase_file: Path | None = None, remember: bool = True) -> Pool:
        """Open the pool at a path.

        Args:
            url: Where it lies.
            passphrase_file: Holds its passphrase, when that is not the one of the command's other pools.
            remember: Note on this machine where it lies.

        Raises:
            PerdureError: It is not there, or the passphrase does not open it.
        """
        from perdure.repository.descriptor import read_descriptor
        from perdure.repository.opening import open_pool
        from perdure.storage.opening import open_storage

        storage = open_storage(url)
        pool_id = read_descriptor(storage).id
        if pool_id not in self._pools:
            secret = self._secret(passphrase_file or self.options.passphrase_file, storage.url)
            pool = self._closing.enter_context(open_pool(storage, secret, self.home.cache_dir(pool_id)))
            if remember:
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
        return PoolKeys.open(storage, self._secret(self.options.passphrase_file, storage.url), pool_id)

    def _secret(self, file: Path | None, url: str) -> Secret:
        """The secret in a file, or what a person types, who is asked once."""
        if file not in self._secrets:
            self._secrets[file] = as_secret(read_passphrase(file, what=f"the storage pool {url}"))
        return self._secrets[file]

    def pool(self, pool_id: str) -> Pool:
        """Open a pool that this home knows.

        Raises:
            NotFound: The home does not know where it lies.
        """
        for known in self.home.pools():
            if known.id == pool_id:
                return self._known_pool(known.url)
        raise NotFound(
            f"it is not known here where storage pool {pool_id} lies",
            code="pool-missing",
            hint="tell it with: perdure pool open PATH",
        )

    def _known_pool(self, url: str) -> Pool:
        try:
            return self.pool_at(url)
        except NotFound as error:
            hint = "if it has moved: perdure pool open PATH; if it is lost, read a second copy of it with --pool PATH"
            raise NotFound(error.message, code=error.code, hint=hint) from error

    def protected(self, name: str, pool: str | None = None) -> Protected:
        """A data source by the name that people call it.

        Args:
            name: Its name.
            pool: The path of the pool to take it from, such as a second copy; the one that it is protected in if
                ``None``.

        Raises:
            NotFound: No source has this name.
        """
        if pool is None:
            return self.protected_source(self.home.find_source(name))
        return self._copied(name, self.pool_at(pool, remember=False))

    def url_of(self, protected: Protected) -> str:
        """Where the pool of a source that was opened here lies."""
        return self._pools[protected.vault.id].storage.url

    def _copied(self, name: str, pool: Pool) -> Protected:
        from perdure.protection.protected import Protected, workload_for

        sources = pool.sources()
        for source in sources:
            if name in (source.name, source.id):
                return Protected(self.home, pool, source, workload_for(source.workload))
        there = ", ".join(source.name for source in sources) or "nothing"
        raise NotFound(
            f"the storage pool {pool.storage.url} has no data source called {name!r}",
            code="source-not-found",
            hint=f"it has: {there}",
        )

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
