"""What a walk below a root is to find, and what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from nptwatch.store.records import SeenFile


@dataclass(slots=True, kw_only=True)
class Sweep:
    """What one walk below a root found.

    Attributes:
        root: real path.
        unreachable: why the root could not be listed; None when it was.
        files: weights files by real path; not those at rest.
        woken: signatures, by real path, of files that were at rest and are no longer.
        is_partial: the walk ended early, with as many files as were wanted.
        listed: real paths of folders that were listed; not of those at rest.
        below: real paths of the folders in one that was not to be gone into; not of those at rest.
        unlisted: real paths of folders below the root that could not be listed.
        links: real path to path below the root, of every symlinked folder that was followed.
        mounts: real paths of folders below the root at which another file system begins.
        skipped: weights files and folders left out, with the reason.
        unstorable: those of them that no database can hold.
    """

    root: str
    unreachable: str | None = None
    files: dict[str, SeenFile] = field(default_factory=dict)
    woken: dict[str, str] = field(default_factory=dict)
    is_partial: bool = False
    listed: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unstorable: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> int:
        """A number that differs, in all likelihood, where what was found does."""
        signatures = frozenset((file.path, file.signature) for file in self.files.values())
        return hash((len(self.listed), signatures, frozenset(self.missing)))

    @property
    def folders(self) -> int:
        """How many were listed."""
        return len(self.listed)

    @property
    def missing(self) -> set[str]:
        """Real paths of files that were at rest and may be gone."""
        return self.woken.keys() - self.files.keys()

    def is_unchanged(self, file: SeenFile) -> bool:
        """Say whether a file was at rest and is as it was; its folder is not."""
        return self.woken.get(file.path) == file.signature


@dataclass(slots=True)
class Portion:
    """How much a walk is to find.

    Attributes:
        room: so many files more that are not tracked.
        tracked: real paths of files.
        goes_on: with what an earlier walk has not come to; what rests is not looked at again.
    """

    room: float = math.inf
    tracked: Container[str] = ()
    goes_on: bool = False
