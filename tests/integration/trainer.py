"""A process that writes a file as torch.save does: to its final name, front to back, directory last.

    python trainer.py SOURCE TARGET CHUNKS

Writes TARGET in CHUNKS pieces of SOURCE's bytes. Before each but the first it prints "ready" and
waits for a line, so that a test can stop or kill it at a known place; at the end it prints "done".
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Write the target piece by piece."""
    source, target, chunks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    data = Path(source).read_bytes()
    size = -(-len(data) // chunks)
    with Path(target).open("wb", buffering=0) as file:
        for start in range(0, len(data), size):
            if start:
                print("ready", flush=True)
                sys.stdin.readline()
            file.write(data[start : start + size])
    print("done", flush=True)


if __name__ == "__main__":
    main()
