"""Where credentials and settings of object stores come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from perdure.model.errors import BadInput
from perdure.storage.contract import StorageFailed
from perdure.storage.object_connection import connect, settled
from perdure.storage.object_urls import ObjectPlace
from perdure.testing.object_servers import clean_environment

S3 = ObjectPlace.parse("s3://bucket/p")
AZURE = ObjectPlace.parse("azure://box/p")
KEY = "a2V5a2V5a2V5"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine; the two files of ~/.aws are in the test's folder."""
    for name, value in clean_environment(tmp_path).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = d\n"
        "[work]\naws_access_key_id = WORK\naws_secret_access_key = w\naws_session_token = t\n"
    )
    (tmp_path / "config").write_text(
        "[default]\nregion = eu-north-1\n[profile work]\nregion = eu-west-3\n"
        "[profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n"
    )


def test_the_default_profile_gives_keys_and_region() -> None:
    """Without variables the default profile counts."""
    config = connect(S3).config

    assert (config["access_key_id"], config["region"]) == ("DEFAULT", "eu-north-1")


def test_a_named_profile_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE chooses, from both files."""
    monkeypatch.setenv("AWS_PROFILE", "work")

    config = connect(S3).config

    assert (config["access_key_id"], config["session_token"], config["region"]) == ("WORK", "t", "eu-west-3")


def test_variables_win_over_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_ACCESS_KEY_ID and AWS_REGION count before any profile, and the URL's region before both."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "VARIABLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "v")
    monkeypatch.setenv("AWS_REGION", "sa-east-1")

    # What obstore reads from the environment itself is not shown in its configuration.
    assert "access_key_id" not in connect(S3).config
    assert connect(S3).config["region"] == "sa-east-1"
    assert connect(S3.with_option("region", "us-west-2")).config["region"] == "us-west-2"


def test_a_missing_profile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that is named and not there is an error, not a reason to try other credentials."""
    monkeypatch.setenv("AWS_PROFILE", "wrok")

    with pytest.raises(StorageFailed, match="no profile 'wrok'"):
        connect(S3)


def test_a_profile_with_a_role_needs_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without boto3 the hint says what to install; with it the role is boto3's affair."""
    monkeypatch.setenv("AWS_PROFILE", "role")
    connect(S3)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3", raising=False)

    with pytest.raises(StorageFailed, match="needs boto3") as caught:
        connect(S3)

    assert "perdure[immutability]" in caught.value.hint


def test_an_endpoint_of_the_environment_becomes_part_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool made through AWS_ENDPOINT_URL is found again without it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    assert settled(S3).url == "s3://bucket/p?endpoint=http://127.0.0.1:1"


def test_the_url_wins_over_the_environments_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool's URL leads to the same server whatever the environment says."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    place = S3.with_option("endpoint", "http://127.0.0.1:2")

    assert settled(place) == place
    with pytest.raises(GenericError, match=r"http://127\.0\.0\.1:2/bucket/p/x"):
        connect(place).get("x")


def test_azure_takes_a_connection_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the portal gives as one line is enough; the account and the endpoint become part of the URL, the key not."""
    text = f"DefaultEndpointsProtocol=http;AccountName=me;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/me/;"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)

    place = settled(AZURE)

    assert place.url == "azure://box/p?account=me&endpoint=http://127.0.0.1:1/me"
    assert connect(place).config["account_key"] == KEY


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account there is no place; a variable or the URL gives it."""
    with pytest.raises(BadInput, match="account"):
        connect(settled(AZURE))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "me")

    assert settled(AZURE).url == "azure://box/p?account=me"


def test_a_key_that_is_none_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account key that cannot be decoded is refused before anything is sent, and not repeated."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "hush!hush")

    with pytest.raises(StorageFailed) as caught:
        connect(AZURE.with_option("account", "me"))

    assert caught.value.code == "wrong-credentials"
    assert "hush" not in caught.value.message


def test_certificates_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing AWS_CA_BUNDLE is an error of its own."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))

    with pytest.raises(StorageFailed, match="AWS_CA_BUNDLE"):
        connect(S3)
