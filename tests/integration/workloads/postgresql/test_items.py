"""Single databases, schemas and tables of a moment: listed, dumped, and loaded into a running server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg.sql import SQL, Identifier
from shop import Shop

from perdure.model.errors import PerdureError
from perdure.protection.browse import browse
from perdure.protection.recovery import RecoveryReport, recover

ORDERS = "SELECT count(*) FROM orders"


@pytest.fixture
def elsewhere(shop: Shop) -> Iterator[str]:
    """Another database of the running server, empty."""
    shop.server.execute("CREATE DATABASE elsewhere")
    yield f"{shop.server.conninfo} dbname=elsewhere"
    shop.server.execute("DROP DATABASE elsewhere WITH (FORCE)")


def ask(shop: Shop, where: str, query: str) -> list[tuple[Any, ...]]:
    with shop.server.connect(where) as connection:
        return connection.execute(query).fetchall()


def take_out(shop: Shop, *items: str, target: Path | None = None, **options: str) -> RecoveryReport:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    to = shop.at(shop.middle)
    return recover(shop.protected, to=to, target=target, items=items, options=named, scratch=shop.scratch())


class _Unreadable:
    """A pool whose image cannot be read."""

    def __init__(self, pool: object) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        if name == "image_map":
            raise AssertionError("the image was read again")
        return getattr(self._pool, name)


def test_a_moment_is_looked_into(shop: Shop) -> None:
    """Databases, schemas and tables are listed; what was listed once is listed again without another scratch server."""

    def names(path: str) -> dict[str, str]:
        found = browse(shop.protected, to=shop.at(shop.middle), path=path, scratch=shop.scratch())
        return {item.name: item.kind for item in found.items}

    assert names("") == {"postgres": "database", "shop": "database"}
    shop.protected = replace(shop.protected, vault=_Unreadable(shop.pool))
    try:
        assert names("shop") == {"shop.audit": "schema", "shop.public": "schema"}
        assert names("shop.public") == {"shop.public.customer": "table", "shop.public.orders": "table"}
        assert names("shop.audit") == {'shop.audit."odd.Name"': "table"}
        assert names('shop.audit."odd.Name"') == {'shop.audit."odd.Name"': "table"}
        for path, code in (("shop.publik", "item-not-found"), ("a.b.c.d", "bad-item"), ('"a', "bad-item")):
            with pytest.raises(PerdureError) as refusal:
                names(path)
            assert refusal.value.code == code
    finally:
        shop.protected = replace(shop.protected, vault=shop.pool)


def test_a_table_comes_out_as_a_file(shop: Shop, elsewhere: str, tmp_path: Path) -> None:
    """A dump of tables at a moment has their rows of that moment, and nothing else."""
    target = tmp_path / "orders.dump"
    report = take_out(shop, "shop.public.orders", "shop.public.customer", target=target)
    assert report.paths == (target,)
    assert report.verification is not None
    assert (report.verification.passed, report.verification.means) == (True, "pg_restore --list")
    shop.server.run([str(shop.server.bin / "pg_restore"), "-d", elsewhere], stdin=target.open("rb"))
    assert ask(shop, elsewhere, ORDERS) == [(20500,)]
    assert ask(shop, elsewhere, "SELECT to_regnamespace('audit')") == [(None,)]
    assert [path.name for path in tmp_path.iterdir()] == ["orders.dump"]
    with pytest.raises(PerdureError) as refusal:
        take_out(shop, "shop.public.orders", target=target)
    assert refusal.value.code == "target-exists"


def test_a_database_is_loaded_into_another(shop: Shop, elsewhere: str) -> None:
    """All of a database at a moment goes into an empty one; a second time it is refused, or replaces the first."""
    report = take_out(shop, "shop", load=elsewhere)
    assert report.verification is not None
    assert (report.verification.passed, report.verification.means) == (True, "row counts at both ends")
    assert ask(shop, elsewhere, ORDERS) == [(20500,)]
    ask(shop, elsewhere, "DELETE FROM orders WHERE id > 10 RETURNING id")
    with pytest.raises(PerdureError, match="already") as refusal:
        take_out(shop, "shop", load=elsewhere)
    assert refusal.value.code == "item-exists"
    take_out(shop, "shop.public.orders", load=elsewhere, overwrite="yes")
    assert ask(shop, elsewhere, ORDERS) == [(20500,)]


def test_a_table_is_loaded_beside_the_present_one(shop: Shop) -> None:
    """Into a schema of its own, the table of a moment lies beside the live one, which keeps its rows."""
    live = f"{shop.server.conninfo} dbname=shop"
    now = ask(shop, live, ORDERS)
    with pytest.raises(PerdureError) as refusal:
        take_out(shop, "shop.public.orders", load=live)
    assert (refusal.value.code, ask(shop, live, ORDERS)) == ("item-exists", now)
    try:
        take_out(shop, "shop.public.orders", 'shop.audit."odd.Name"', load=live, into_schema="Old Times")
        assert ask(shop, live, 'SELECT count(*) FROM "Old Times".orders') == [(20500,)]
        assert ask(shop, live, 'SELECT count(*) FROM "Old Times"."odd.Name"') == [(0,)]
        assert ask(shop, live, ORDERS) == now
        assert now != [(20500,)]
    finally:
        with shop.server.connect(live) as connection:
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier("Old Times")))


def test_what_cannot_be_taken_out_changes_nothing(shop: Shop, elsewhere: str, tmp_path: Path) -> None:
    """Names of nothing, of two databases, and a table whose keys lead nowhere are refused with what to do."""
    target = tmp_path / "file"
    for items, options, code in (
        (("shop.public.ordres",), {}, "item-not-found"),
        (("shop.public.orders", "postgres"), {}, "bad-item"),
        (("shop..orders",), {}, "bad-item"),
    ):
        with pytest.raises(PerdureError) as refusal:
            take_out(shop, *items, target=target, **options)
        assert (refusal.value.code, target.exists()) == (code, False)
        assert refusal.value.hint
    with pytest.raises(PerdureError, match="customer") as refusal:
        take_out(shop, "shop.public.orders", load=elsewhere)
    assert refusal.value.code == "load-failed"
    assert ask(shop, elsewhere, "SELECT to_regclass('public.orders')") == [(None,)]
    with pytest.raises(PerdureError) as refusal:
        take_out(shop, "shop", load=elsewhere, into_schema="old")
    assert refusal.value.code == "bad-item"
    assert not list(shop.scratch().iterdir())


@pytest.mark.parametrize(
    ("items", "options", "code"),
    [
        ((), {"load": "//x/y"}, "bad-recovery-option"),
        (("shop",), {"overwrite": "yes"}, "bad-recovery-option"),
        (("shop",), {"start": "yes"}, "bad-recovery-option"),
        ((), {"primary_conninfo": "host=x"}, "bad-recovery-option"),
        ((), {"standby": "yes"}, "bad-recovery-option"),
        ((), {"port": "70000"}, "bad-port"),
        ((), {"standby": "yes", "primary_conninfo": "nonsense"}, "bad-location"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    shop: Shop, items: tuple[str, ...], options: dict[str, str], code: str
) -> None:
    """What would have no effect, or not the one that was meant, is an error before anything is written."""
    target = shop.target()
    with pytest.raises(PerdureError) as refusal:
        take_out(shop, *items, target=target, **options)
    assert (refusal.value.code, target.exists()) == (code, False)
    assert refusal.value.hint
