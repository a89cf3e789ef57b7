"""Which file system a folder is on, as Linux says in /proc/self/mountinfo."""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK_FILE_SYSTEMS = frozenset(
    [
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "wekafs",
    ]
)

_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_of(folder: Path, mountinfo: str | None = None) -> str | None:
    """Give the type of the file system that holds a folder, e.g. "ext4" or "nfs4".

    Args:
        folder: need not exist.
        mountinfo: text of /proc/self/mountinfo; None: read it.

    Returns:
        None where the system does not say.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return None
    real = Path(os.path.realpath(folder))
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
