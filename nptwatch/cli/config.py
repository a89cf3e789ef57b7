"""`nptwatch config`: are the settings right, and which are in force?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nptwatch.cli.screen import print_json
from nptwatch.cli.session import ConfigOption, JsonOption  # noqa: TC001 - Typer reads them
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.settings import Loaded, Settings

CHANNELS = "channels"
"""The one section whose entries are tables."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""Check the settings, or show those in force.

    Example: nptwatch config show
    """,
)


@app.command()
def check(*, config: ConfigOption = None) -> None:
    """Say whether the settings are right; exit code 2 and every problem if not.

    Example: nptwatch config check --config /etc/nptwatch/config.toml
    """
    loaded = _load(config)
    _require_templates(loaded.settings)
    _require_channels(loaded.settings)
    print(f"ok: {loaded.file or 'no settings file, defaults'}")
    if not loaded.settings.watch.roots:
        typer.echo("note: watch.roots is empty; name directories: `nptwatch run ROOT`", err=True)
    for root in loaded.settings.watch.roots:
        if not root.is_dir():
            typer.echo(f"note: watch.roots: {root} is not a directory", err=True)
    problems = (*_channel_problems(loaded.settings), *_export_problems(loaded.settings))
    for problem in problems:
        typer.echo(f"note: {problem}", err=True)


@app.command()
def show(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show all settings in force, as TOML, each with where it comes from; secrets masked.

    Example: nptwatch config show
    """
    loaded = _load(config)
    tree = _masked(loaded)
    if as_json:
        print_json({"file": loaded.file, "settings": tree})
        return
    print(f"# settings file: {loaded.file or 'none'}")
    _print_table("", {k: v for k, v in tree.items() if not isinstance(v, dict)}, loaded)
    for section, table in tree.items():
        if section == CHANNELS and isinstance(table, dict):
            _print_channels(table, loaded)
        elif isinstance(table, dict):
            _print_section(section, table, loaded)


def _load(config: Path | None) -> Loaded:
    from nptwatch.settings import load

    return load(config, env=os.environ)


def _require_templates(settings: Settings) -> None:
    if settings.alerts.templates is not None:
        from nptwatch.alerts.templates import Texts

        Texts(settings.alerts.templates).check()


def _require_channels(settings: Settings) -> None:
    if settings.digest.channels:
        from nptwatch.alerts.channels import chosen_channels

        chosen_channels("digest.channels", settings.digest.channels, settings.channels)


def _channel_problems(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with channels here; a daemon's environment may hold more secrets."""
    from nptwatch.alerts.channels import make_channels

    for channel in make_channels(settings.channels, env=os.environ):
        try:
            channel.check()
        except ConfigError as error:
            yield str(error)


def _export_problems(settings: Settings) -> Iterator[str]:
    """Yield what exports lack here."""
    from nptwatch.exports.targets import make_targets

    try:
        targets = make_targets(settings, env=os.environ)
    except ConfigError as error:
        yield str(error)
        return
    for target in targets:
        if problem := target.missing():
            yield f"exports.{target.name}: {problem}"


def _masked(loaded: Loaded) -> dict[str, object]:
    """Give all values as JSON has them, without a secret."""
    tree: dict[str, object] = loaded.settings.model_dump(mode="json")
    if loaded.settings.database.url is not None:
        tree["database"] = loaded.settings.database.model_dump(mode="json") | {
            "url": loaded.settings.safe_database_url
        }
    return tree


def _print_channels(channels: dict[str, dict[str, object]], loaded: Loaded) -> None:
    """Print a table for each channel; they hold the names of secrets only."""
    if not channels:
        print(f"\n[{CHANNELS}]")
    for name, table in channels.items():
        print(f"\n[{CHANNELS}.{name}]  # {loaded.given[CHANNELS].origin}")
        for line in _lines(table):
            print(line)


def _print_section(section: str, table: dict[str, object], loaded: Loaded) -> None:
    """Print a table, and the tables in it."""
    inner = {name: value for name, value in table.items() if isinstance(value, dict)}
    if len(inner) < len(table):
        print(f"\n[{section}]")
        own = {name: value for name, value in table.items() if name not in inner}
        _print_table(f"{section}.", own, loaded)
    for name, value in inner.items():
        _print_section(f"{section}.{name}", value, loaded)


def _print_table(prefix: str, table: dict[str, object], loaded: Loaded) -> None:
    for name, line in zip(table, _lines(table), strict=True):
        given = loaded.given.get(prefix + name)
        print(f"{line}  # {given.origin}" if given else line)


def _lines(table: dict[str, object]) -> Iterator[str]:
    for name, value in table.items():
        # JSON's strings, numbers, booleans and arrays are TOML's too; null is not
        yield f"# {name} is not set" if value is None else f"{name} = {json.dumps(value)}"
