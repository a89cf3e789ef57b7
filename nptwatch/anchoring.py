"""Makes the paths of settings absolute: each means what it does where it was written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from nptwatch.errors import ConfigError
from nptwatch.export_settings import anchored as anchored_exports
from nptwatch.probe_texts import read_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nptwatch.settings import Settings
    from nptwatch.sources import Given

SQLITE_URL = re.compile(r"(sqlite(?:\+\w+)?:///)(?!file:|:memory:)([^?]+)(\?.*)?")
"""Beginning, file, parameters."""


def home(env: Mapping[str, str]) -> Path:
    """Give the home folder of whoever this is."""
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def absolute(path: Path, folder: Path, env: Mapping[str, str]) -> Path:
    """Expand ~ and make a path absolute; keeps symlinks as they are."""
    if path.parts[:1] == ("~",):
        path = home(env).joinpath(*path.parts[1:])
    try:
        path = path.expanduser()  # ~name
    except RuntimeError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    return Path(os.path.abspath(folder / path))  # noqa: PTH100 - resolve() follows links


def anchored(
    settings: Settings, given: Mapping[str, Given], cwd: Path, env: Mapping[str, str]
) -> Settings:
    """Make paths absolute, so that they mean the same in every folder and child process.

    A path in a file is relative to the file's folder, one from elsewhere to `cwd`.
    """

    def folder_of(key: str) -> Path:
        source = given.get(key)
        return source.file.parent if source and source.file else cwd

    state_dir = absolute(settings.state_dir, folder_of("state_dir"), env)
    roots = tuple(absolute(r, folder_of("watch.roots"), env) for r in settings.watch.roots)
    path_map = tuple(
        pair.model_copy(update={"here": absolute(pair.here, folder_of("path_map"), env)})
        for pair in settings.path_map
    )
    model = settings.base.model
    if model is not None:
        local = absolute(Path(model), folder_of("base.model"), env)
        # a hub name ("meta-llama/Llama-3.2-1B") stays one unless a folder is called so
        model = str(local) if model[0] in "./~" or local.is_dir() else model
    diagnostic = settings.diagnostic
    if diagnostic.probes is not None:
        probes = absolute(diagnostic.probes, folder_of("diagnostic.probes"), env)
        texts = {"probes": probes, "probe_texts": read_texts(probes)}
        diagnostic = diagnostic.model_copy(update=texts)
    gpu = settings.gpu
    if gpu.lock_dir is not None:
        lock_dir = absolute(gpu.lock_dir, folder_of("gpu.lock_dir"), env)
        gpu = gpu.model_copy(update={"lock_dir": lock_dir})
    alerts = settings.alerts
    if alerts.templates is not None:
        templates = absolute(alerts.templates, folder_of("alerts.templates"), env)
        alerts = alerts.model_copy(update={"templates": templates})
    channels = {
        name: channel.model_copy(
            update={
                field: absolute(path, folder_of("channels"), env)
                for field, path in channel
                if isinstance(path, Path)
            }
        )
        for name, channel in settings.channels.items()
    }
    url = settings.database.url
    if url is not None:
        url = SecretStr(_anchored_url(url.get_secret_value(), folder_of("database.url"), env))
    return settings.model_copy(
        update={
            "state_dir": state_dir,
            "path_map": path_map,
            "watch": settings.watch.model_copy(update={"roots": roots}),
            "base": settings.base.model_copy(update={"model": model}),
            "diagnostic": diagnostic,
            "gpu": gpu,
            "alerts": alerts,
            "channels": channels,
            "exports": anchored_exports(
                settings.exports, lambda path, key: absolute(path, folder_of(key), env)
            ),
            "database": settings.database.model_copy(update={"url": url}),
        }
    )


def _anchored_url(url: str, folder: Path, env: Mapping[str, str]) -> str:
    """Make the file of an SQLite URL absolute; other URLs and :memory: stay."""
    match = SQLITE_URL.fullmatch(url)
    if match is None:
        return url
    return f"{match[1]}{absolute(Path(match[2]), folder, env)}{match[3] or ''}"
