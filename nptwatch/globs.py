"""Globs on paths below a root, as people know them from .gitignore."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PathGlobs:
    """A set of patterns; one that matches a folder matches everything below it.

    `*` and `?` stay within one name, `**` crosses folders. A pattern without a slash matches a
    name at any depth (`debug_*`), one with a slash the path from the root (`old/*/final`).
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._anywhere: list[re.Pattern[str]] = []
        self._anchored: list[re.Pattern[str]] = []
        self._all = False
        for pattern in patterns:
            inner = pattern.strip("/")
            self._all = self._all or inner == "**"
            anchored = "/" in pattern.rstrip("/") or inner == "**"
            (self._anchored if anchored else self._anywhere).append(re.compile(_regex(inner)))

    def match(self, relative: str) -> bool:
        """Say whether a path below the root, or a folder it lies in, matches a pattern."""
        if self._all:
            return True
        if not self._anywhere and not self._anchored:
            return False
        parts = relative.split("/")
        if any(p.fullmatch(part) for p in self._anywhere for part in parts):
            return True
        if not self._anchored:
            return False
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        return any(p.fullmatch(path) for p in self._anchored for path in above)


def _regex(pattern: str) -> str:
    pieces = re.split(r"(\*\*/|/\*\*|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    return "".join(_piece(piece) for piece in pieces)


def _piece(piece: str) -> str:
    fixed = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if piece in fixed:
        return fixed[piece]
    if piece.startswith("["):
        return fnmatch.translate(piece).removeprefix("(?s:").removesuffix(r")\Z")
    return re.escape(piece)
