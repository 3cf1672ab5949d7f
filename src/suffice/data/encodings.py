"""Text that may not be UTF-8: what says its encoding is read, and what does not is named as far as it can be told."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import IO, NamedTuple

from suffice.errors import DataError

__all__ = ["AsUtf8", "decode_text", "looks_like", "not_utf8", "unicode_codec"]

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BLOCK = 1 << 16  # bytes
_CERTAIN = 0.7  # of the characters must be among the frequent ones of an encoding
_MANY = 8  # pairs after which the absence of all others means something


class _Encoding(NamedTuple):
    name: str
    """As people know it."""
    codec: str
    """As Python and iconv know it."""
    is_usual: Callable[[int, int], bool]
    """Whether a pair of bytes is one of the frequent characters."""


_ENCODINGS = (
    _Encoding("GBK", "GB18030", lambda lead, trail: (0xB0 <= lead <= 0xD7 or lead in (0xA1, 0xA3)) and trail >= 0xA1),
    _Encoding("Big5", "BIG5", lambda lead, trail: 0xA4 <= lead <= 0xC6 or lead == 0xA1),
    _Encoding("Shift_JIS", "SHIFT_JIS", lambda lead, trail: 0x81 <= lead <= 0x84 or 0x88 <= lead <= 0x97),
)
_KOREAN = _Encoding("EUC-KR", "EUC-KR", lambda lead, trail: (0xB0 <= lead <= 0xC8 or lead == 0xA1) and trail >= 0xA1)
_WESTERN = _Encoding("Windows-1252 (Western European)", "WINDOWS-1252", lambda lead, trail: False)


def unicode_codec(start: bytes) -> str | None:
    """The codec of a text in UTF-16 or UTF-32, by its first four bytes: their mark, or the zeros beside ASCII."""
    for mark, codec in _MARKS.items():
        if start.startswith(mark):
            return codec
    zeros = [byte == 0 for byte in start[:4]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else None


def decode_text(content: bytes, what: str, *, encoding: str = "utf-8", hint: str = "") -> str:
    """The text of bytes in UTF-8, UTF-16 or UTF-32, without a byte order mark; `\\n` ends its lines.

    Args:
        content: the bytes.
        what: what they are, for the message: "standard input".
        encoding: what they are in where they are not UTF-8, if the user has said so.
        hint: what else can be done about it, for the message.

    Raises:
        DataError: they are in another encoding, which is named where it can be told, or no text at all.
    """
    codec = unicode_codec(content[:4])
    if codec is None and b"\0" in content:
        raise DataError(f"{what} is not text: it has zero bytes")
    try:
        text = content.decode(codec or "utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            if codec or codecs.lookup(encoding).name == "utf-8":
                raise error
            text = content.decode(encoding)
        except UnicodeDecodeError:
            raise DataError(f"{what} is {not_utf8(content, error.start, hint)}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def not_utf8(content: bytes, position: int, hint: str = "") -> str:
    """ "not UTF-8 (byte 0xc4 at position 1); it looks like GBK: convert it, ..."; `position` from 0."""
    where = f"byte 0x{content[position]:02x} at position {position + 1}"
    begin = position if position > _BLOCK else 0  # of a large file, a part tells as much
    found = looks_like(content[begin : position + _BLOCK])
    if found is None:
        return f"not UTF-8 ({where}): save it as UTF-8"
    name, codec = found
    return f"not UTF-8 ({where}), it looks like {name}: convert it with `iconv -f {codec} -t UTF-8`{hint}"


def looks_like(content: bytes) -> tuple[str, str] | None:
    """The encoding of a text that is not UTF-8: its usual name, and that of its codec; None where it cannot be told.

    Each encoding with two bytes to a character uses a part of them for nearly all of its texts; single bytes between
    ASCII letters are Western European.
    """
    pairs, single = _pairs(content)
    if single > len(pairs):
        return _WESTERN[:2]
    if not pairs:
        return None
    shares = {each: sum(each.is_usual(*pair) for pair in pairs) / len(pairs) for each in (_KOREAN, *_ENCODINGS)}
    if len(pairs) >= _MANY and shares[_KOREAN] == 1 and _decodes(content, _KOREAN.codec):
        return _KOREAN[:2]  # its syllables lie among the Chinese characters of GBK, in the first half of them
    able = [each for each in _ENCODINGS if shares[each] >= _CERTAIN and _decodes(content, each.codec)]
    return max(able, key=lambda each: shares[each])[:2] if able else None


def _pairs(content: bytes) -> tuple[list[tuple[int, int]], int]:
    """The bytes above ASCII, each with the next one; and how many of them stand alone between ASCII letters."""
    content += b"\n"
    pairs, single, place = [], 0, 0
    while place < len(content) - 1:
        lead, trail = content[place], content[place + 1]
        if lead < 0x80:
            place += 1
            continue
        alone = trail < 0x80 and (place == 0 or content[place - 1] < 0x80)
        if alone and (chr(trail).isspace() or chr(trail).isalpha()) and place and chr(content[place - 1]).isalpha():
            single, place = single + 1, place + 1
            continue
        pairs.append((lead, trail))
        place += 2
    return pairs, single


def _decodes(content: bytes, codec: str) -> bool:
    """Whether the bytes are text in this encoding; the last character may be cut."""
    try:
        codecs.getincrementaldecoder(codec)().decode(content, final=False)
    except UnicodeDecodeError:
        return False
    return True


class AsUtf8(io.RawIOBase):
    """A file in another encoding, read as UTF-8. A place that cannot be decoded is an OSError."""

    def __init__(self, file: IO[bytes], codec: str) -> None:
        self._file, self._codec = file, codec
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._left:
            block = self._file.read(_BLOCK)
            try:
                self._left = self._decoder.decode(block, final=not block).encode()
            except UnicodeDecodeError as error:
                raise OSError(f"not valid {self._codec.upper()}: {error.reason}") from None
            if not block:
                break
        size = min(len(target), len(self._left))
        target[:size], self._left = self._left[:size], self._left[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
