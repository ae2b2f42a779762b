"""Recovery points as people name them: ``NAME#NUMBER``."""

from __future__ import annotations

from perdure.model.errors import BadInput

__all__ = ["parse_point"]


def parse_point(text: str) -> tuple[str, int]:
    """Split ``app#12`` into ``("app", 12)``.

    Raises:
        BadInput: The name or the number is missing.
    """
    name, mark, number = text.rpartition("#")
    if not mark or not name or not (number.isdecimal() and number.isascii() and len(number) <= 8):
        raise BadInput(
            f"{text!r} does not name a recovery point",
            code="bad-point",
            hint="write NAME#NUMBER, for example app#12; perdure points NAME lists the numbers",
        )
    return name, int(number)
