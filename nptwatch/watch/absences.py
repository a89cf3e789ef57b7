"""Files that the database knows and the disk may no longer have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.watch.sighting import is_gone, unreachable

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from nptwatch.watch.discovery import Finder
    from nptwatch.watch.ledger import Ledger
    from nptwatch.watch.registrar import Registrar
    from nptwatch.watch.sweep import Sweep


class Absences:
    """Files that were looked for and are gone, until the database has that."""

    def __init__(self, ledger: Ledger, registrar: Registrar, finder: Finder) -> None:
        self._ledger = ledger
        self._registrar = registrar
        self._finder = finder
        self._compared: set[str] = set()
        self._gone: set[str] = set()

    def suspect(self, path: str, root: str) -> None:
        """Call a file deleted only if it is: not when its root is away, or it is now left out."""
        if is_gone(path) and unreachable(root) is None:
            self._gone.add(path)

    def clear(self, path: str) -> None:
        """Be told that a file was seen."""
        self._gone.discard(path)

    def look_for(self, sweeps: Sequence[Sweep]) -> None:
        """Suspect each file that was known and is not in a walk that came to its end."""
        for path, root in self._ledger.paths().items():
            if not any(path in sweep.files for sweep in sweeps):
                self.suspect(path, root)

    def compare(self, unreachable_roots: Container[str]) -> None:
        """Once each root was walked to its end, suspect what only the database knows below it.

        Raises:
            DatabaseError: it cannot be asked; the next call asks again.
        """
        for root in self._finder.roots():
            if root in self._compared or root in unreachable_roots:
                continue
            for path in self._registrar.unseen(root, self._has_seen):
                self._ledger.unseen[path] = root
                self.suspect(path, root)
            self._compared.add(root)

    def store(self) -> None:
        """Have the database know what is gone.

        Raises:
            DatabaseError: it does not; the next call tells it again.
        """
        if not self._gone:
            return
        paths = sorted(self._gone)
        self._registrar.gone(paths)
        for path in paths:
            self._ledger.forget(path)
        self._gone.clear()

    def _has_seen(self, path: str) -> bool:
        return path in self._ledger.tracks or self._finder.holds(path)
