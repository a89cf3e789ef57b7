"""Which file systems are other hosts' too: by statfs, and by name where that does not say it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from nptwatch import filesystem
from nptwatch.filesystem import filesystem_of, statfs_kind

MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw
41 40 0:51 / /home/my\\040data rw,relatime - xfs /dev/vdb rw
42 27 0:52 / /scratch rw - ext4 /dev/vdc rw
43 27 0:53 / /scratch rw - lustre mds:/scratch rw
44 27 0:54 / /ssh rw - fuse.sshfs host:/ rw
45 27 0:55 / /ntfs rw - fuseblk /dev/sdb1 rw
46 27 0:56 / /weka rw - wekafs backend/fs rw
47 27 0:57 / /auto rw - autofs auto.home rw
"""
EXT, NFS, FUSE, UNKNOWN = 0xEF53, 0x6969, 0x65735546, 0x12345678


def no_answer(_: str) -> int:
    """Be a statfs that fails."""
    raise OSError(errno.ESTALE, "Stale file handle")


@pytest.mark.parametrize(
    ("folder", "name", "network"),
    [
        ("/home/me", "nfs4", True),
        ("/home/my data/x", "xfs", False),
        ("/homes", "ext4", False),
        ("/scratch/x", "lustre", True),
        ("/ssh", "fuse.sshfs", True),
        ("/ntfs", "fuseblk", False),
        ("/", "ext4", False),
    ],
)
def test_mounts_name_the_file_system(
    folder: str, name: str, monkeypatch: pytest.MonkeyPatch, *, network: bool
) -> None:
    """The deepest mount counts, of several on one point the last; so it is where statfs fails."""
    monkeypatch.setattr(filesystem, "statfs_kind", no_answer)
    found = filesystem_of(Path(folder), MOUNTS)
    assert found is not None
    assert (found.name, found.network) == (name, network)


@pytest.mark.parametrize(
    ("magic", "folder", "name", "network"),
    [
        (NFS, "/home/me", "nfs4", True),
        (NFS, "/auto/me", "nfs", True),  # mounted by the asking itself
        (0x0BD00BD0, "/", "lustre", True),
        (0x47504653, "/", "gpfs", True),
        (0xFF534D42, "/", "cifs", True),
        (0xFE534D42, "/", "smb2", True),
        (0x01021997, "/", "9p", True),
        (0x00C36400, "/", "ceph", True),
        (0x19830326, "/", "beegfs", True),
        (0x5346414F, "/", "afs", True),
        (FUSE, "/ssh/x", "fuse.sshfs", True),
        (FUSE, "/", "fuse", True),
        (FUSE, "/ntfs", "fuseblk", False),
        (UNKNOWN, "/weka", "wekafs", True),
        (UNKNOWN, "/", "ext4", False),
        (EXT, "/", "ext4", False),
    ],
)
def test_statfs_says_what_kind_it_is(
    magic: int, folder: str, name: str, monkeypatch: pytest.MonkeyPatch, *, network: bool
) -> None:
    """Of FUSE only the name tells whether it is a disk of this host."""
    monkeypatch.setattr(filesystem, "statfs_kind", lambda _: magic)
    found = filesystem_of(Path(folder), MOUNTS)
    assert found is not None
    assert (found.name, found.network) == (name, network)


def test_nothing_is_said_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither statfs nor mounts: nobody knows."""
    monkeypatch.setattr(filesystem, "statfs_kind", no_answer)
    assert filesystem_of(Path("/"), "") is None


def test_the_system_is_really_asked(tmp_path: Path) -> None:
    """The number is stat(1)'s, of a folder that is there, and of one that is not yet."""
    said = subprocess.run(
        ["stat", "-f", "-c", "%t", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert statfs_kind(str(tmp_path)) == int(said.stdout, 16)
    assert filesystem_of(tmp_path / "not/there") == filesystem_of(tmp_path)
    found = filesystem_of(Path("/proc"))
    assert found is not None
    assert (found.name, found.network) == ("proc", False)
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        statfs_kind(str(tmp_path / "not"))
