"""URLs of pools on object stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.model.errors import BadInput
from perdure.storage.object_urls import ObjectPlace, is_object_url
from perdure.storage.opening import open_storage, with_endpoint


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("az://box/pool?account=me", "azure://box/pool?account=me"),
        (
            "s3://bucket/a%20b?region=eu-west-1&endpoint=http%3A%2F%2Fh%3A1",
            "s3://bucket/a%20b?endpoint=http://h:1&region=eu-west-1",
        ),
        ("s3://bucket/p?lock=compliance", "s3://bucket/p?lock=compliance"),
        ("s3://bucket/p?endpoint=", "s3://bucket/p"),
    ],
)
def test_equal_places_have_equal_urls(given: str, same: str) -> None:
    """A URL is kept in one form, which leads to the same place."""
    place = ObjectPlace.parse(given)

    assert place.url == same
    assert ObjectPlace.parse(place.url) == place


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///p",
        "s3://b",
        "s3://bucket/a//b",
        "s3://bucket/../up",
        "s3://bucket/leases/p",
        "s3://bucket/p#part",
        "s3://bucket:80/p",
        "s3://bucket/p?lock=strong",
        "s3://bucket/p?account=me",
        "s3://bucket/p?region=a&region=b",
        "s3://bucket/p?endpoint=host:80",
        "s3://bucket/p?endpoint=ftp://host",
        "s3://bucket/p?endpoint=http://host:port",
        "azure://box/p?region=eu",
        "s3://[bucket/p",
    ],
)
def test_wrong_urls_are_refused(url: str) -> None:
    """What is no place is said to be none."""
    with pytest.raises(BadInput) as caught:
        open_storage(url)

    assert caught.value.code == "bad-storage-url"


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAHUSH:hush@bucket/p",
        "s3://hush@bucket/p",
        "s3://bucket/p?secret_access_key=hush",
        "s3://bucket/p?endpoint=https://user:hush@host",
        "azure://box/p?sig=hush",
        "azure://box/p?endpoint=https://a.blob.core.windows.net/?sv=1%26sig=hush",
    ],
)
def test_secrets_in_urls_are_refused_and_not_repeated(url: str) -> None:
    """A URL is kept in plain text, so a key or token in one is refused, and the message does not show it."""
    with pytest.raises(BadInput) as caught:
        open_storage(url)

    assert "hush" not in f"{caught.value.message} {caught.value.hint}"


def test_an_endpoint_becomes_part_of_the_url() -> None:
    """--endpoint makes exactly the URL that has it, once."""
    url = "s3://bucket/prefix?endpoint=http://127.0.0.1:8333"

    assert with_endpoint("s3://bucket/prefix", "http://127.0.0.1:8333") == url
    assert with_endpoint(url, "http://127.0.0.1:8333") == url
    assert with_endpoint("/mnt/pool", None) == "/mnt/pool"


def test_an_endpoint_elsewhere_makes_no_sense(tmp_path: Path) -> None:
    """--endpoint is refused for a directory, and when the URL names another."""
    with pytest.raises(BadInput):
        with_endpoint(str(tmp_path), "http://127.0.0.1:1")
    with pytest.raises(BadInput):
        with_endpoint("s3://bucket/p?endpoint=http://127.0.0.1:1", "http://127.0.0.1:2")


def test_other_urls_are_not_supported(tmp_path: Path) -> None:
    """A scheme that perdure does not know is refused by its name; paths and file:// lead to directories."""
    with pytest.raises(BadInput) as caught:
        open_storage("gs://bucket/p")
    assert caught.value.code == "unsupported-storage"

    assert open_storage(f"file://{tmp_path}").url == str(tmp_path)
    assert not is_object_url("s3")
    assert not is_object_url(str(tmp_path))
