"""Text of others, such as names of classes and files, on one line of a terminal or a log."""

from __future__ import annotations

_CONTROL = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)  # characters, and separators of lines and paragraphs
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROL}


def one_line(text: str) -> str:
    r"""Return the text with control characters and line separators as escapes, such as `\n`."""
    return text.translate(_ESCAPES)
