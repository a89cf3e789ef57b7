"""What is typed to call this very installation."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def own_command(*words: str) -> str:
    """Give a command line: the script beside the interpreter, or the interpreter itself."""
    script = Path(sys.executable).parent / "nptwatch"
    start = [str(script)] if script.exists() else [sys.executable, "-m", "nptwatch"]
    return shlex.join([*start, *words])
