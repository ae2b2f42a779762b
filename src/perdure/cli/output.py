"""What a command prints: text for people or JSON for programs on standard output, remarks on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from perdure.model.errors import PerdureError

__all__ = ["fail", "print_json", "print_lines", "remark"]


def print_json(document: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON document on one line, at once, so that a reader of a stream sees it."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str) + "\n")
    sys.stdout.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Print text for people."""
    for line in lines:
        sys.stdout.write(_printable(line) + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """Say something on standard error that is not the result."""
    sys.stderr.write(_printable(f"perdure: {text}") + "\n")
    sys.stderr.flush()


def fail(error: PerdureError, *, as_json: bool) -> int:
    """Report an error and return its exit status.

    With ``as_json`` the report is a document on standard output, else text on standard error.
    """
    if as_json:
        print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
    else:
        remark(error.message)
        if error.hint:
            sys.stderr.write(_printable(f"hint: {error.hint}") + "\n")
    return error.exit_status


def _printable(text: str) -> str:
    """File names are bytes; what is not UTF-8 in them is shown escaped instead of failing."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
