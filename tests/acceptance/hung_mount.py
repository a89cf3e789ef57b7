"""Mounts a file system whose server never answers, in a namespace of its own; becomes a command.

FUSE with nobody reading its device: whoever looks below the mount waits, as for a dead NFS server.
Prints "cannot mount: ..." and ends with 77 where that is not allowed.
"""

from __future__ import annotations

import ctypes
import os
import sys

NO_SUCH_RIGHT = 77
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def main(folder: str, command: list[str]) -> int:  # noqa: RET503 - it never returns
    """Mount, and become the command, which holds the mount's device for as long as it lives."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)

    try:
        call("unshare", CLONE_NEWNS)
        call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        call("mount", b"hung", os.fsencode(folder), b"fuse", 0, options)
        os.set_inheritable(device, True)
    except OSError as error:
        print(f"cannot mount: {error}")
        return NO_SUCH_RIGHT
    os.execvp(command[0], command)  # noqa: S606 - it takes this process's place


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
