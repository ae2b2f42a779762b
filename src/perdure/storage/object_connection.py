"""From a place to obstore's client: endpoint, region, certificates and credentials.

Credentials come from where the provider's own tools look for them:

* S3: ``AWS_ACCESS_KEY_ID`` and its companions; then the profile ``AWS_PROFILE`` (or ``default``) of
  ``~/.aws/credentials`` and ``~/.aws/config``; then web identity, container and instance roles. A profile that
  needs more than keys (``role_arn``, ``sso_session``, ``credential_process``) is left to boto3 when that is installed.
* Azure: ``AZURE_STORAGE_CONNECTION_STRING``; then account name with key, shared access signature, client secret or
  federated token from ``AZURE_*``; then a managed identity; the Azure command line with ``AZURE_USE_AZURE_CLI=true``.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from perdure.model.errors import BadInput
from perdure.storage.contract import StorageFailed
from perdure.storage.object_urls import ObjectPlace

__all__ = ["ObjectStore", "connect", "settled"]

ObjectStore = S3Store | AzureStore

_NO_LIMIT = timedelta(hours=1)
"""Every call has a deadline of its own, so obstore's must only not come before it."""

_BEYOND_KEYS = ("role_arn", "sso_session", "sso_start_url", "credential_process", "web_identity_token_file")


def settled(place: ObjectPlace) -> ObjectPlace:
    """The place with what only the environment says of it, so that its URL leads there from everywhere."""
    if place.kind == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return place.with_option("endpoint", endpoint) if endpoint and not place.endpoint else place
    known = _azure_environment()
    if "account" not in place.options and known.get("account_name"):
        place = place.with_option("account", known["account_name"])
    if not place.endpoint and known.get("endpoint"):
        place = place.with_option("endpoint", known["endpoint"])
    return place


def connect(place: ObjectPlace, *, retries: int = 0) -> ObjectStore:
    """Make a client; nothing is sent yet.

    Args:
        place: Where.
        retries: How often obstore repeats a request by itself.

    Raises:
        BadInput: The account is not known.
        StorageFailed: Credentials or certificates cannot be used.
    """
    options: dict[str, Any] = {
        "client_options": _client_options(place),
        "retry_config": {"max_retries": retries, "retry_timeout": timedelta(minutes=2)},
        "prefix": place.prefix or None,
    }
    try:
        return _s3(place, options) if place.kind == "s3" else _azure(place, options)
    except (BaseError, ValueError) as error:
        first = str(error).partition("\n\n")[0]
        raise StorageFailed(
            f"cannot use the credentials for the {place.words}: {first}",
            code="wrong-credentials",
            hint="check the AWS_ or AZURE_ variables and the profile",
        ) from error


def _client_options(place: ObjectPlace) -> dict[str, Any]:
    options: dict[str, Any] = {
        "timeout": _NO_LIMIT,
        "connect_timeout": timedelta(seconds=10),
        "allow_http": (place.endpoint or "").startswith("http://"),
        "user_agent": "perdure",
    }
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        try:
            options["root_certificate"] = Path(bundle).read_bytes()
        except OSError as error:
            raise StorageFailed(f"cannot read {bundle} (AWS_CA_BUNDLE): {error.strerror}") from error
    return options


# --- S3 ---


def _s3(place: ObjectPlace, options: dict[str, Any]) -> S3Store:
    profile = {} if os.environ.get("AWS_ACCESS_KEY_ID") else _aws_profile()
    region = place.options.get("region") or _aws_region(profile)
    if region:
        options["region"] = region
    if place.endpoint:
        # Both: obstore lets AWS_ENDPOINT_URL_S3 of the environment win over an endpoint that it is given.
        options |= {"endpoint": place.endpoint, "aws_endpoint_url_s3": place.endpoint}
    if profile.get("aws_access_key_id") and profile.get("aws_secret_access_key"):
        options |= {
            "access_key_id": profile["aws_access_key_id"],
            "secret_access_key": profile["aws_secret_access_key"],
        }
        if profile.get("aws_session_token"):
            options["session_token"] = profile["aws_session_token"]
    elif any(name in profile for name in _BEYOND_KEYS):
        options["credential_provider"] = _through_boto3(place)
    # The checksum is required where a bucket locks by default, and the server checks it everywhere.
    return S3Store(place.bucket, conditional_put="etag", checksum_algorithm="SHA256", **options)


def _aws_region(profile: Mapping[str, str]) -> str:
    environment = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return environment or profile.get("region") or _aws_profile().get("region", "")


def _aws_profile() -> dict[str, str]:
    """What the two files in ``~/.aws`` say of the profile; what is not there is empty."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    config = _ini(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
    credentials = _ini(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    section = name if name == "default" else f"profile {name}"
    found = {**config.get(section, {}), **credentials.get(name, {})}
    if not found and name != "default":
        raise StorageFailed(
            f"there is no profile {name!r} in ~/.aws",
            code="no-credentials",
            hint="check AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return found


def _ini(path: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(Path(path).expanduser(), encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise StorageFailed(f"cannot read {path}", code="no-credentials", hint="correct or remove the file") from error
    return {section: dict(parser[section]) for section in parser.sections()}


def _through_boto3(place: ObjectPlace) -> Any:
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 (boto3 is optional)
    except ImportError as error:
        raise StorageFailed(
            f"the profile for the {place.words} needs boto3 (it has a role, single sign-on or a credential process)",
            code="no-credentials",
            hint="pip install 'perdure[immutability]', which brings boto3, or use a profile with keys",
        ) from error
    return Boto3CredentialProvider()


# --- Azure ---


def _azure(place: ObjectPlace, options: dict[str, Any]) -> AzureStore:
    options |= _azure_environment()
    if "account" in place.options:
        options["account_name"] = place.options["account"]
    if place.endpoint:
        options["endpoint"] = place.endpoint
    if not options.get("account_name"):
        raise BadInput(
            f"the storage account of the {place.words} is not known",
            code="bad-storage-url",
            hint="add ?account=NAME to the URL, or set AZURE_STORAGE_ACCOUNT_NAME",
        )
    return AzureStore(place.bucket, **options)


_CONNECTION_STRING = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_key",
    "blobendpoint": "endpoint",
}


def _azure_environment() -> dict[str, str]:
    """Account, key and endpoint as the environment gives them; obstore reads the other variables itself."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    pairs = (part.partition("=") for part in text.split(";") if part)
    found = {_CONNECTION_STRING[key.lower()]: value for key, _, value in pairs if key.lower() in _CONNECTION_STRING}
    # The first two are what the Azure command line calls them; obstore knows other names too.
    for variable, name in (
        ("AZURE_STORAGE_ACCOUNT", "account_name"),
        ("AZURE_STORAGE_KEY", "account_key"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account_name"),
        ("AZURE_STORAGE_ENDPOINT", "endpoint"),
    ):
        if os.environ.get(variable):
            found.setdefault(name, os.environ[variable])
    if "endpoint" in found:
        found["endpoint"] = found["endpoint"].rstrip("/")
    return found
