"""Object stores that fail: every call ends by its deadline, and what is told is what happened."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import obstore
import pytest

from perdure.model.errors import BadInput, NotFound, PerdureError
from perdure.storage.contract import ObjectExists, StorageFailed, StorageFull, StorageReadOnly
from perdure.storage.object_calls import Patience
from perdure.storage.object_urls import ObjectPlace
from perdure.storage.objects import ObjectStorage
from perdure.storage.opening import open_storage
from perdure.testing.cutting_proxy import CuttingProxy
from perdure.testing.object_servers import Azurite, ObjectServer, SeaweedFS

SHORT = Patience(answer_s=0.4, total_s=1.0, slowest=64 << 20)
LONG = Patience(answer_s=20.0, total_s=60.0)


def storage_at(url: str, patience: Patience = LONG) -> ObjectStorage:
    return ObjectStorage(ObjectPlace.parse(url), patience=patience)


@pytest.fixture(params=["seaweedfs", "azurite"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    """Both servers in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, ObjectServer)
    return found


@pytest.fixture
def proxy(server: ObjectServer) -> Iterator[CuttingProxy]:
    """A proxy in front of a server."""
    with CuttingProxy(server.endpoint) as proxy:
        yield proxy


def through(proxy: CuttingProxy, server: ObjectServer, prefix: str, patience: Patience = LONG) -> ObjectStorage:
    return storage_at(server.url("pools", prefix).replace(server.endpoint, proxy.endpoint), patience)


def answer(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


CALLS: dict[str, Callable[[ObjectStorage], Any]] = {
    "read": lambda storage: storage.read("a"),
    "read_range": lambda storage: storage.read_range("a", 0, 1),
    "read_ranges": lambda storage: storage.read_ranges("a", [(0, 1), (9 << 20, 1)]),
    "size": lambda storage: storage.size("a"),
    "list": lambda storage: list(storage.list("")),
    "create": lambda storage: storage.create("b", b"x"),
    "commit": lambda storage: storage.commit(storage.stage(), "c"),
    "publish": lambda storage: storage.barrier([storage.publish(storage.stage(), "d")]),
    "delete": lambda storage: storage.delete("a", "e"),
    "lease": lambda storage: storage.lease("00000001-aa"),
    "leases": lambda storage: storage.leases(),
    "look": lambda storage: storage.look(),
}


# --- credentials and places ---


def test_wrong_credentials_are_told(server: ObjectServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is called that, and appears in no message."""
    secret = "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc="
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", secret)

    with pytest.raises(StorageFailed) as caught:
        open_storage(server.url("pools", prefix))

    assert caught.value.code == "wrong-credentials"
    assert secret not in f"{caught.value.message} {caught.value.hint}"


def test_missing_credentials_are_told(server: ObjectServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials the message says so, and how to give some."""
    for name in server.environment:
        monkeypatch.delenv(name)

    with pytest.raises(StorageFailed) as caught:
        open_storage(server.url("pools", prefix))

    assert caught.value.code == "no-credentials"
    assert "AWS_" in caught.value.hint or "AZURE_" in caught.value.hint


def test_a_missing_bucket_is_told(server: ObjectServer) -> None:
    """A bucket that does not exist is not made, and not taken for an empty one."""
    with pytest.raises(NotFound) as caught:
        open_storage(server.url("no-such-bucket", "pool"), create=True)

    assert caught.value.code == "bucket-missing"


@pytest.mark.parametrize(
    "url", ["s3://pools/p?endpoint=http://127.0.0.1:1", "azure://pools/p?account=a&endpoint=http://127.0.0.1:1/a"]
)
def test_a_refused_connection_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listening is told as that, with the place."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "eA==")

    with pytest.raises(StorageFailed, match=r"127\.0\.0\.1:1.*connection refused") as caught:
        storage_at(url, SHORT).look()

    assert caught.value.code == "storage-unreachable"


def test_tls_where_there_is_none_is_told(seaweedfs: SeaweedFS) -> None:
    """An https:// endpoint of a server that speaks http is told without trying for long."""
    with pytest.raises(StorageFailed, match="does not speak TLS"):
        storage_at(seaweedfs.url("pools", "p").replace("http:", "https:"), SHORT).look()


# --- servers that go away ---


@pytest.mark.parametrize("call", CALLS)
def test_no_call_waits_for_ever_for_a_frozen_server(server: ObjectServer, prefix: str, call: str) -> None:
    """With a server that accepts connections and says nothing, every call ends by its deadline with a typed error."""
    storage_at(server.url("pools", prefix)).create("a", b"x")
    storage = storage_at(server.url("pools", prefix), SHORT)
    server.freeze()
    try:
        with pytest.raises(StorageFailed) as caught:
            CALLS[call](storage)
    finally:
        server.thaw()

    assert caught.value.code == "storage-unreachable"
    assert "did not answer" in caught.value.message or "no answer" in caught.value.message


@pytest.mark.parametrize("call", CALLS)
def test_every_call_tells_that_the_server_is_gone(
    server: ObjectServer, proxy: CuttingProxy, prefix: str, call: str
) -> None:
    """With a server that went away in the middle, every call ends by its deadline with a typed error."""
    through(proxy, server, prefix).create("a", b"x")
    storage = through(proxy, server, prefix, SHORT)
    proxy.vanish()

    with pytest.raises(StorageFailed) as caught:
        CALLS[call](storage)

    assert caught.value.code == "storage-unreachable"


def test_a_call_outlives_a_restart_of_the_server(server: ObjectServer, proxy: CuttingProxy, prefix: str) -> None:
    """A server that comes back in time is not noticed, beside the time it took."""
    storage = through(proxy, server, prefix)
    proxy.vanish()
    failed = threading.Event()

    def come_back() -> None:
        failed.wait()
        proxy.return_()

    returning = threading.Thread(target=come_back)
    returning.start()
    with pytest.MonkeyPatch.context() as patch:
        put = obstore.put_async

        async def noticing(*arguments: Any, **options: Any) -> Any:
            try:
                return await put(*arguments, **options)
            except obstore.exceptions.GenericError:
                failed.set()
                raise

        patch.setattr(obstore, "put_async", noticing)
        storage.create("a", b"x")
    returning.join()

    assert storage.read("a") == b"x"


# --- answers that are lost ---


@pytest.mark.parametrize("how", ["create", "commit", "publish"])
def test_an_own_write_whose_answer_was_lost_is_no_conflict(
    server: ObjectServer, proxy: CuttingProxy, prefix: str, how: str
) -> None:
    """A create that is repeated because its answer was lost succeeds, and the name is taken for everybody else."""
    storage, content = through(proxy, server, prefix), b"own" * 700_000
    staged = storage.stage()
    staged.write(content)
    proxy.lose_answers(2)

    if how == "create":
        storage.create("a", content)
    elif how == "commit":
        storage.commit(staged, "a")
    else:
        storage.barrier([storage.publish(staged, "a")])

    assert proxy.lost == 2
    assert storage.read("a") == content
    with pytest.raises(ObjectExists):
        storage.create("a", content)


def test_a_lost_answer_does_not_hide_that_another_was_first(
    server: ObjectServer, proxy: CuttingProxy, prefix: str
) -> None:
    """When the answer "exists already" is lost, the repetition still says it, also for an equal content."""
    storage = through(proxy, server, prefix)
    storage_at(server.url("pools", prefix)).create("a", b"same")
    proxy.lose_answers(1)

    with pytest.raises(ObjectExists):
        storage.create("a", b"same")

    assert proxy.lost == 1


def test_where_metadata_is_dropped_the_content_decides(
    server: ObjectServer, proxy: CuttingProxy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store that keeps no metadata a lost answer is resolved by what lies there."""
    put = obstore.put_async

    def without_metadata(*arguments: Any, attributes: object = None, **options: Any) -> Any:
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put_async", without_metadata)
    storage = through(proxy, server, prefix)
    storage.create("other", b"first")
    proxy.lose_answers(1)
    storage.create("own", b"content")
    proxy.lose_answers(1)

    with pytest.raises(ObjectExists):
        storage.create("other", b"again")
    with pytest.raises(ObjectExists):
        storage.create("own", b"content")


# --- answers that say no ---


def test_a_busy_server_is_asked_again(server: ObjectServer, proxy: CuttingProxy, prefix: str) -> None:
    """503 and 429 are answers of the moment."""
    storage = through(proxy, server, prefix)
    proxy.answer_with(answer("503 Slow Down", "SlowDown"), answer("429 Too Many", "TooManyRequests"))

    storage.create("a", b"x")

    assert storage.read("a") == b"x"


@pytest.mark.parametrize(
    "case",
    [
        ("403 Forbidden", "AccessDenied", "create", StorageReadOnly, "pool-read-only"),
        ("403 Forbidden", "AccessDenied", "read", StorageFailed, "access-denied"),
        ("403 Forbidden", "RequestTimeTooSkewed", "create", StorageFailed, "clock-wrong"),
        ("507 Insufficient Storage", "InsufficientStorage", "create", StorageFull, "pool-full"),
        ("403 Forbidden", "QuotaExceeded", "publish", StorageFull, "pool-full"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "read", StorageFailed, "wrong-region"),
        ("400 Bad Request", "ExpiredToken", "read", StorageFailed, "wrong-credentials"),
        ("400 Bad Request", "EntityTooLarge", "create", StorageFailed, "storage-failed"),
        ("501 Not Implemented", "NotImplemented", "create", StorageFailed, "unsupported-storage"),
    ],
    ids=lambda case: case[1],
)
def test_refusals_are_told_for_what_they_are(
    server: ObjectServer,
    proxy: CuttingProxy,
    prefix: str,
    case: tuple[str, str, str, type[PerdureError], str],
) -> None:
    """A refusal that trying again cannot change becomes a typed error at once."""
    status, said, call, error, code = case
    storage = through(proxy, server, prefix)
    proxy.answer_with(answer(status, said))

    with pytest.raises(error) as caught:
        CALLS[call](storage)

    assert caught.value.code == code


def test_a_store_that_overwrites_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pool is made on a store that ignores If-None-Match."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")

    class SayingYes(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_POST = do_PUT  # noqa: N815 (as above)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SayingYes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        storage = storage_at(f"s3://pools/p?endpoint=http://127.0.0.1:{server.server_port}", SHORT)
        try:
            with pytest.raises(BadInput) as caught:
                storage.prove_conditional()
        finally:
            server.shutdown()

    assert caught.value.code == "unsupported-storage"


def test_uploads_that_fail_are_told_by_the_barrier(azurite: Azurite, prefix: str) -> None:
    """Publications that cannot happen do not stop the one who publishes, and are told by the barrier."""
    storage = storage_at(azurite.url("pools", prefix), SHORT)
    azurite.freeze()
    try:
        pending = []
        for number in range(6):
            staged = storage.stage()
            staged.write(bytes(2 << 20))
            pending.append(storage.publish(staged, f"packs/{number}"))
        with pytest.raises(StorageFailed):
            storage.barrier(pending)
    finally:
        azurite.thaw()
