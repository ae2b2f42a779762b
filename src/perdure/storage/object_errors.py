"""What an object store's error means to a person, and whether trying again can help."""

from __future__ import annotations

import re
from dataclasses import dataclass

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
)

from perdure.model.errors import NotFound, PerdureError
from perdure.storage.contract import ObjectMissing, StorageFailed, StorageFull, StorageReadOnly
from perdure.storage.object_urls import ObjectPlace

__all__ = ["STORE_ERRORS", "Failure", "beyond_the_end", "did_not_answer", "understood"]

STORE_ERRORS = (BaseError, FileNotFoundError, AlreadyExistsError)
"""All that obstore raises for what a server said or did."""

_FULL = ("QuotaExceeded", "InsufficientStorage", "StorageFull", "InsufficientCapacity")
_WRONG_KEY = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidSecurity",
    "AuthorizationFailure",
    "AuthenticationFailed",
    "NoAuthenticationInformation",
)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "container does not exist", "ContainerBeingDeleted")
_LOOKING_FOR_CREDENTIALS = ("/latest/api/token", "/latest/meta-data", "/metadata/identity", "token request", "/msi?")
_SKEW = ("RequestTimeTooSkewed", "RequestExpired")
_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "incorrectly configured region")


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt.

    Args:
        error: What to tell.
        transient: Whether it can be different next time.
    """

    error: PerdureError
    transient: bool = False


def beyond_the_end(error: BaseException) -> bool:
    """Whether a range was refused because it begins behind the object's end."""
    text = str(error)
    return " 416 " in text or "Wanted range starting at" in text


def did_not_answer(place: ObjectPlace, what: str, seconds: float, *, writing: bool) -> Failure:
    """An attempt that ran into its deadline."""
    unknown = "; whether it was written is not known" if writing else ""
    return Failure(
        StorageFailed(
            f"cannot {what}: the {place.words} did not answer within {seconds:.0f} s{unknown}",
            code="storage-unreachable",
            hint="check the network and the server; what was acknowledged before is safe",
        ),
        transient=True,
    )


def understood(error: BaseException, place: ObjectPlace, what: str, *, writing: bool) -> Failure:
    """The failure that an error of obstore means.

    Args:
        error: What obstore raised.
        place: Where.
        what: What was tried, as in "cannot …".
        writing: Whether it would have changed something.
    """
    text = str(error)
    code = _service_code(text)
    sentence = f"cannot {what} in the {place.words}"
    for answer in (_credentials(text, code, place), _setting(text, code, place), _room(text, code, sentence)):
        if answer is not None:
            return Failure(answer)
    if isinstance(error, AlreadyExistsError):
        # Not the last word: S3 also answers 409 while another request for the same name is under way.
        conflict = StorageFailed(f"{sentence}: another write of the same name is under way")
        return Failure(conflict, transient=True)
    if isinstance(error, FileNotFoundError):
        return Failure(ObjectMissing(f"the {place.words} has no such object: cannot {what}"))
    if isinstance(error, PermissionDeniedError) or " 403 " in text:
        return Failure(_denied(sentence, code, writing=writing))
    if isinstance(error, NotSupportedError) or " 501 " in text:
        return Failure(StorageFailed(f"{sentence}: the server does not support it", code="unsupported-storage"))
    return _other(text, code, sentence)


def _service_code(text: str) -> str:
    """The error code in the answer's XML, or an empty text."""
    found = re.search(r"<Code>\s*([A-Za-z0-9]+)\s*</Code>", text)
    return found[1] if found else ""


def _credentials(text: str, code: str, place: ObjectPlace) -> PerdureError | None:
    if code == "ExpiredToken" or "token has expired" in text:
        return StorageFailed(
            f"the credentials for the {place.words} have expired",
            code="wrong-credentials",
            hint=_credentials_hint(place),
        )
    if any(word in text for word in _LOOKING_FOR_CREDENTIALS):
        return StorageFailed(
            f"there are no credentials for the {place.words}: none in the environment, none in a profile, "
            "and this machine has no role that would give some",
            code="no-credentials",
            hint=_credentials_hint(place),
        )
    if code in _WRONG_KEY or any(word in text for word in _WRONG_KEY) or " 401 " in text:
        return StorageFailed(
            f"the {place.words} refuses the credentials ({code or 'unauthorized'})",
            code="wrong-credentials",
            hint=_credentials_hint(place),
        )
    return None


def _credentials_hint(place: ObjectPlace) -> str:
    if place.kind == "s3":
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile in ~/.aws"
    return "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING"


def _setting(text: str, code: str, place: ObjectPlace) -> PerdureError | None:
    if any(word in text for word in _NO_BUCKET):
        return NotFound(
            f"there is no {place.words}",
            code="bucket-missing",
            hint="check the name; perdure does not make buckets: make it with the provider's tools first",
        )
    if code in _SKEW:
        return StorageFailed(
            f"the {place.words} refuses requests because this machine's clock is wrong",
            code="clock-wrong",
            hint="set the clock (it must be right within 15 minutes)",
        )
    if any(word in text for word in _REGION):
        return StorageFailed(
            f"the {place.words} lies in another region",
            code="wrong-region",
            hint="set AWS_REGION, or add ?region=NAME to the URL",
        )
    return None


def _room(text: str, code: str, sentence: str) -> PerdureError | None:
    if " 507 " in text or any(word in text for word in _FULL):
        return StorageFull(
            f"{sentence}: there is no room left ({code or 'insufficient storage'})",
            hint="make room or raise the quota; nothing that was acknowledged is lost",
        )
    return None


def _denied(sentence: str, code: str, *, writing: bool) -> PerdureError:
    reason = f"{sentence}: access denied ({code or '403'})"
    if writing:
        return StorageReadOnly(
            reason,
            hint="these credentials must be allowed to put and delete objects to protect; recovery needs get and list",
        )
    return StorageFailed(
        reason, code="access-denied", hint="these credentials must be allowed to list the bucket and to get objects"
    )


def _other(text: str, code: str, sentence: str) -> Failure:
    reason, hint, transient = _connection(text)
    if reason:
        return Failure(StorageFailed(f"{sentence}: {reason}", code="storage-unreachable", hint=hint), transient)
    status = re.search(r"status code: (\d{3})", text)
    lasting = status is not None and status[1].startswith("4") and status[1] not in ("408", "425", "429")
    if status is not None:
        said = f"the server answered {status[1]}{f' {code}' if code else ''}"
    else:
        said = _first_sentence(text)
    return Failure(
        StorageFailed(f"{sentence}: {said}", hint="check the server, then run the command again"), not lasting
    )


def _connection(text: str) -> tuple[str, str, bool]:
    """What is wrong with the connection, what to do, and whether it can be different in a moment."""
    if "dns error" in text:
        return "no such host", "check the endpoint's spelling and this machine's name servers", True
    if "ConnectionRefused" in text:
        return "connection refused", "check the endpoint's port, and that the server runs", True
    if "UnknownIssuer" in text or "certificate" in text.lower():
        hint = "trust its authority on this machine, or name a file of certificates in AWS_CA_BUNDLE"
        return "the server's certificate is not trusted", hint, False
    if "InvalidMessage" in text or "InvalidContentType" in text:
        return "the server does not speak TLS there", "check whether the endpoint is http:// or https://", False
    if "kind: Timeout" in text or "timed out" in text.lower():
        return "no answer in time", "check the network and the server", True
    if "kind: Connect" in text:
        return "cannot connect", "check the endpoint, the network and the server", True
    if "error sending request" in text or "body error" in text:
        return "the connection broke", "check the network and the server", True
    return "", "", False


def _first_sentence(text: str) -> str:
    """An error's own words without its debug part, and without queries of URLs, which may carry signatures."""
    first = text.partition("\n\nDebug source:")[0]
    return re.sub(r"\?\S+", "", first).strip()[:300]
