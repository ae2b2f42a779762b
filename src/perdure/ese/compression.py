"""Compressed column values: 7-bit text, XPRESS (LZ77) and LZ4. XPRESS9 and XPRESS10 are not read."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Compression", "Incompressible", "decompressed"]


class Compression(IntEnum):
    """How a value is compressed: the top five bits of its first byte."""

    NONE = 0
    ASCII_7BIT = 1
    UNICODE_7BIT = 2
    XPRESS = 3
    SCRUBBED = 4
    XPRESS9 = 5
    XPRESS10 = 6
    LZ4 = 7


class Incompressible(ValueError):
    """A value that cannot be decompressed; its text says why."""


def decompressed(content: bytes) -> bytes:
    """A value as it was before compression.

    Raises:
        Incompressible: It is cut short, contradicts itself, was scrubbed, or is compressed in a way that is not read.
    """
    if not content:
        raise Incompressible("it is empty")
    scheme = content[0] >> 3
    try:
        if scheme == Compression.ASCII_7BIT:
            return _seven_bit(content)
        if scheme == Compression.UNICODE_7BIT:
            wide = bytearray(2 * len(text := _seven_bit(content)))
            wide[::2] = text
            return bytes(wide)
        if scheme == Compression.XPRESS:
            return _xpress(content[3:], int.from_bytes(content[1:3], "little"))
        if scheme == Compression.LZ4:
            return _lz4(content[3:], int.from_bytes(content[1:3], "little"))
    except IndexError:
        raise Incompressible("it is cut short") from None
    names = {Compression.SCRUBBED: "its content was scrubbed by the engine"}
    known = scheme in list(Compression)
    raise Incompressible(
        names.get(scheme) or f"it is compressed with {Compression(scheme).name if known else f'scheme {scheme}'}"  # type: ignore[call-overload]
    )


def _seven_bit(content: bytes) -> bytes:
    """Seven bits for every character, the lowest first; the first byte says how many bits of the last one count."""
    if len(content) < 2:
        return b""
    bits = (len(content) - 2) * 8 + (content[0] & 7) + 1
    packed = int.from_bytes(content[1:], "little")
    return bytes(packed >> 7 * index & 0x7F for index in range(bits // 7))


def _xpress(content: bytes, size: int) -> bytes:
    """Plain LZ77 as in [MS-XCA]: a bit of every 32-bit word says whether a literal or a match follows."""
    output = bytearray()
    at, half_byte, flags, left = 0, -1, 0, 0
    while len(output) < size:
        if not left:
            flags, left = int.from_bytes(content[at : at + 4], "little"), 32
            if at + 4 > len(content):
                raise Incompressible("it is cut short")
            at += 4
        left -= 1
        if not flags >> left & 1:
            output.append(content[at])
            at += 1
            continue
        word = content[at] | content[at + 1] << 8
        at += 2
        distance, length = (word >> 3) + 1, word & 7
        if length == 7:
            if half_byte < 0:
                half_byte = at
                length = content[at] & 15
                at += 1
            else:
                length = content[half_byte] >> 4
                half_byte = -1
            if length == 15:
                length = content[at]
                at += 1
                if length == 255:
                    length = content[at] | content[at + 1] << 8
                    at += 2
                    if length == 0:
                        length = int.from_bytes(content[at : at + 4], "little")
                        at += 4
                    length -= 22
                length += 15
            length += 7
        _repeat(output, distance, length + 3, size)
    return bytes(output)


def _lz4(content: bytes, size: int) -> bytes:
    """One LZ4 block."""
    output = bytearray()
    at = 0
    while at < len(content):
        token = content[at]
        literals, at = _lz4_length(content, at + 1, token >> 4)
        if at + literals > len(content):
            raise Incompressible("it is cut short")
        output += content[at : at + literals]
        at += literals
        if at >= len(content):
            break
        distance = content[at] | content[at + 1] << 8
        length, at = _lz4_length(content, at + 2, token & 15)
        _repeat(output, distance, length + 4, size)
    if len(output) != size:
        raise Incompressible(f"it gives {len(output)} bytes, and {size} were compressed")
    return bytes(output)


def _lz4_length(content: bytes, at: int, length: int) -> tuple[int, int]:
    if length == 15:
        while True:
            more = content[at]
            at += 1
            length += more
            if more != 255:
                break
    return length, at


def _repeat(output: bytearray, distance: int, length: int, size: int) -> None:
    """Append a match; it may overlap what it makes."""
    if not 0 < distance <= len(output) or length < 0:
        raise Incompressible("a match points before its beginning")
    if len(output) + length > size:
        raise Incompressible("it gives more bytes than were compressed")
    pattern = output[-distance:]
    whole, rest = divmod(length, distance)
    output += pattern * whole + pattern[:rest]
