"""Files that travel with the package: the units of deploy/systemd and the example settings."""

from __future__ import annotations

from pathlib import Path

from nptwatch.errors import ConfigError


def shipped(name: str) -> str:
    """Read one: inside an installed wheel, or at the top of a checkout.

    Raises:
        ConfigError: it is in neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package, package.parent):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise ConfigError(f"{name} is neither in {package} nor beside it: install nptwatch again")
