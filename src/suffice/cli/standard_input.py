"""What is piped into a command."""

from __future__ import annotations

import sys

__all__ = ["standard_input"]

_HINT = " before it comes here, or name its encoding in PYTHONIOENCODING"


def standard_input() -> str:
    """All of it: in UTF-8, with or without a mark, in the UTF-16 of Windows' pipes, or in the terminal's encoding.

    Raises:
        UsageError: it is text in none of these.
    """
    from suffice.data.encodings import decode_text

    return decode_text(sys.stdin.buffer.read(), "standard input", encoding=sys.stdin.encoding, hint=_HINT)
