"""Which file system a folder is on: statfs(2) says of which kind, /proc/self/mountinfo its name.

On a network file system nobody hears of what another host writes, times and names of files are
remembered for a while, and SQLite's locks do not hold.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FUSE: Final = 0x65735546

_NETWORK_MAGIC: Final = {
    0x0000517B: "smbfs",
    0x0000564C: "ncpfs",
    0x00006969: "nfs",
    0x00C36400: "ceph",
    0x01021997: "9p",
    0x01161970: "gfs2",
    0x013111A8: "ibrix",
    0x0BD00BD0: "lustre",
    0x19830326: "beegfs",
    0x20030528: "orangefs",
    0x47504653: "gpfs",
    0x5346414F: "afs",
    0x61636673: "acfs",
    0x6B414653: "afs",
    0x73757245: "coda",
    0x7461636F: "ocfs2",
    0x786F4256: "vboxsf",
    0x7C7C6673: "prl_fs",
    0xAAD7AAEA: "panfs",
    0xBACBACBC: "vmhgfs",
    0xBEEFDEAD: "snfs",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
}
"""statfs.f_type, as linux/magic.h, statfs(2) and the file systems' own headers have it."""

_NETWORK_NAMES: Final = frozenset(
    {*_NETWORK_MAGIC.values(), "glusterfs", "nfs4", "pvfs2", "smb3", "virtiofs", "wekafs"}
)
"""As mountinfo has them: some have no known f_type, and some two names."""

_LOCAL_FUSE: Final = frozenset(
    {
        "fuseblk",  # NTFS, exFAT: on a block device
        "fuse.cryfs",
        "fuse.encfs",
        "fuse.exfat",
        "fuse.fuse-overlayfs",  # a rootless container's own
        "fuse.gocryptfs",
        "fuse.ntfs-3g",
    }
)
"""FUSE may be anything, sshfs and object stores among it; these are of this host only."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """A file system.

    Attributes:
        name: its type as `mount` says it, e.g. "ext4", "nfs4" or "fuse.sshfs".
        network: other hosts may write to it.
    """

    name: str
    network: bool


def filesystem_of(folder: Path, mountinfo: str | None = None) -> FileSystem | None:
    """Say what holds a folder; may hang as long as its server does.

    Args:
        folder: need not exist.
        mountinfo: text of /proc/self/mountinfo; None: read it.

    Returns:
        None where the system does not say.
    """
    real = Path(os.path.realpath(folder))
    try:
        kind = _kind_of(real)  # first: this mounts what is mounted when it is used
    except OSError:  # no way in, or a dead server's answer: its name says enough
        kind = None
    name = _mounted_name(real, mountinfo)
    if kind == _FUSE:
        if name is None or not name.startswith(("fuse", "virtiofs")):
            name = "fuse"
        return FileSystem(name=name, network=name not in _LOCAL_FUSE)
    if kind in _NETWORK_MAGIC:
        known = name if name in _NETWORK_NAMES else _NETWORK_MAGIC[kind]
        return FileSystem(name=known, network=True)
    if name is None:
        return None
    fuse = kind is None and name.startswith("fuse") and name not in _LOCAL_FUSE
    return FileSystem(name=name, network=fuse or name in _NETWORK_NAMES)


def statfs_kind(path: str) -> int:
    """Give statfs.f_type, which Python's own statvfs leaves out.

    Raises:
        OSError: the file system does not say.
    """
    import ctypes  # here: it costs 5 ms

    found = ctypes.create_string_buffer(512)  # struct statfs begins with f_type
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), found) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF


def _kind_of(folder: Path) -> int | None:
    """Ask of a folder, or of the nearest one above it that is there."""
    for there in (folder, *folder.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            return statfs_kind(str(there))
    return None


def _mounted_name(real: Path, mountinfo: str | None) -> str | None:
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return None
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        mount, separator, source = line.partition(" - ")
        if not separator:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), mount.split()[4]))
        depth = len(point.parts)
        # of mounts on one point the last one is on top
        if (best is None or depth >= best[0]) and real.is_relative_to(point):
            best = (depth, source.split()[0])
    return None if best is None else best[1]
