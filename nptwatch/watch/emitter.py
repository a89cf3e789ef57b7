"""inotify on the folders that matter, one by one, behind watchdog's interface for emitters.

watchdog's own emitter watches every folder of a tree and keeps paths of each: 60 MB of ours and as
much of the kernel's at 100,000 folders, more watches than many a system allows. Its table of moved
folders is also what ends its thread (see observer.py). Here the caller says which folders; those
that come into being below them are added at once, before anybody is told of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
)
from watchdog.observers.api import EventEmitter
from watchdog.observers.inotify_c import (
    InotifyConstants,
    inotify_add_watch,
    inotify_init,
    inotify_rm_watch,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import EventQueue, ObservedWatch
    from watchdog.observers.inotify_c import WatchDescriptor

_HEADER: Final = struct.Struct("iIII")
"""wd, mask, cookie, length of the name that follows: inotify(7)."""
_BUFFER_BYTES: Final = 64 * 1024

_COME: Final = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO
_GO: Final = InotifyConstants.IN_DELETE | InotifyConstants.IN_MOVED_FROM
_MASK: Final = (
    _COME
    | _GO
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
    | InotifyConstants.IN_EXCL_UNLINK
)


class FolderEmitter(EventEmitter):
    """Hears of the folder that it is scheduled for, and of those that it is given.

    Attributes:
        has_overflowed: the kernel has thrown events away.
        has_lost: a folder that it heard of is gone.
    """

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        timeout: float = 1.0,
        event_filter: list[type[FileSystemEvent]] | None = None,
    ) -> None:
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter)
        self._lock = threading.Lock()
        self._paths: dict[int, str] = {}
        self._descriptors: dict[str, WatchDescriptor] = {}
        self._inotify = -1
        self._wake_read, self._wake_write = -1, -1
        self.has_overflowed = False
        self.has_lost = False

    def on_thread_start(self) -> None:
        """Open inotify.

        Raises:
            OSError: so many instances, or watches, are not allowed.
        """
        self._inotify = inotify_init()
        if self._inotify < 0:
            raise _error()
        try:
            self._wake_read, self._wake_write = os.pipe()
            with self._lock:
                self._add(self.watch.path)
        except OSError:  # the thread that would close them never runs
            self._close()
            raise

    def on_thread_stop(self) -> None:
        """Have the thread end; it closes what is open."""
        with self._lock, suppress(OSError):  # once closed, its number may be another file's
            os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Read until stopped."""
        try:
            super().run()
        finally:
            self._close()

    def _close(self) -> None:
        with self._lock:
            for descriptor in (self._inotify, self._wake_read, self._wake_write):
                with suppress(OSError):
                    os.close(descriptor)
            self._inotify = self._wake_read = self._wake_write = -1

    def hear(self, folders: Iterable[str]) -> list[str]:
        """Hear of more folders.

        Returns:
            Those that were not heard of before. One that is not there is left out.

        Raises:
            OSError: so many watches are not allowed.
        """
        with self._lock:
            return [
                folder
                for folder in folders
                if folder not in self._descriptors and self._add(folder)
            ]

    def ignore(self, folders: Iterable[str]) -> None:
        """Hear no more of folders; of those below them it is still heard."""
        with self._lock:
            for folder in folders:
                self._remove(folder)

    def missing(self, folders: Iterable[str]) -> list[str]:
        """Give those of some folders that are not heard of."""
        with self._lock:
            self.has_lost = False
            return [folder for folder in folders if folder not in self._descriptors]

    def queue_events(self, timeout: float) -> None:
        """Wait for events and pass them on, on this thread."""
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        if not any(ready == self._inotify for ready, _ in poll.poll(timeout * 1000)):
            return
        for descriptor, mask, name in _parsed(os.read(self._inotify, _BUFFER_BYTES)):
            self._take(descriptor, mask, name)

    def _take(self, descriptor: int, mask: int, name: str) -> None:
        if mask & InotifyConstants.IN_Q_OVERFLOW:
            self.has_overflowed = True
            return
        with self._lock:
            folder = self._paths.get(descriptor)
            if folder is None:
                return
            if mask & InotifyConstants.IN_IGNORED:
                self._forget(descriptor)
                return
            path = f"{folder.rstrip('/')}/{name}"
            if mask & InotifyConstants.IN_MOVE_SELF:
                self._remove_below(folder)
            elif mask & InotifyConstants.IN_ISDIR and mask & _COME:
                self._add_below(path)
            elif mask & InotifyConstants.IN_ISDIR and mask & _GO:
                self._remove_below(path)
        for event in _events(path, mask):
            self.queue_event(event)

    def _add(self, folder: str) -> bool:
        descriptor = inotify_add_watch(self._inotify, os.fsencode(folder), _MASK)
        if descriptor < 0:
            if ctypes.get_errno() in {errno.ENOSPC, errno.ENOMEM, errno.EBADF}:
                raise _error()
            return False
        before = self._paths.get(descriptor)
        if before is not None:  # the same folder under another name: it was moved
            self._descriptors.pop(before, None)
        self._paths[descriptor] = folder
        self._descriptors[folder] = descriptor
        return True

    def _add_below(self, path: str) -> None:
        """Add a folder that came into being, and what is in it by now."""
        folders = [path]
        while folders:
            folder = folders.pop()
            try:
                if self._add(folder):
                    folders += _folders_in(folder)
            except OSError:  # no more watches: the scans find it, and say so
                self.has_overflowed = True
                return

    def _remove(self, folder: str) -> None:
        descriptor = self._descriptors.pop(folder, None)
        if descriptor is not None:
            del self._paths[descriptor]
            inotify_rm_watch(self._inotify, descriptor)

    def _remove_below(self, path: str) -> None:
        below = path + "/"
        for folder in [p for p in self._descriptors if p == path or p.startswith(below)]:
            self._remove(folder)
        self.has_lost = True

    def _forget(self, descriptor: int) -> None:
        self._descriptors.pop(self._paths.pop(descriptor), None)
        self.has_lost = True


def _events(path: str, mask: int) -> Iterator[FileSystemEvent]:
    is_folder = mask & InotifyConstants.IN_ISDIR
    if mask & _COME:
        yield DirCreatedEvent(path) if is_folder else FileCreatedEvent(path)
    if mask & _GO:
        yield DirDeletedEvent(path) if is_folder else FileDeletedEvent(path)
    if mask & InotifyConstants.IN_CLOSE_WRITE:
        yield FileClosedEvent(path)


def _parsed(events: bytes) -> Iterator[tuple[int, int, str]]:
    """Give watch descriptor, mask and name of each event."""
    at = 0
    while at < len(events):
        descriptor, mask, _, length = _HEADER.unpack_from(events, at)
        at += _HEADER.size
        name = events[at : at + length].rstrip(b"\0")
        at += length
        yield descriptor, mask, os.fsdecode(name)


def _folders_in(folder: str) -> Collection[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # gone again
        return ()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
