"""How sizes, rates, lengths of time and tables read."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count", "duration", "rate", "size", "table"]

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def size(octets: float) -> str:
    """Bytes in binary units: ``512 B``, ``1.5 MiB``."""
    if abs(octets) < 1024:
        return f"{octets:.0f} B"
    value = float(octets)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value:.1f} {_UNITS[-1]}"


def rate(octets: float, seconds: float) -> str:
    """Bytes per second in binary units."""
    return f"{size(octets / seconds)}/s" if seconds > 0 else "at once"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 file``, ``2 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """A length of time: ``3 ms``, ``1.4 s``, ``2 min 5 s``, ``3 h 20 min``, ``4 d 2 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    unit, name, smaller, smaller_name = next(span for span in _SPANS if whole >= span[0])
    rest = whole % unit // smaller
    return f"{whole // unit} {name}" + (f" {rest} {smaller_name}" if rest else "")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Aligned columns.

    Args:
        head: Column titles.
        rows: Cells as text.
        right: Numbers of the columns that are aligned to the right.
    """
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
