"""`nptwatch alerts`: who is told what, and how."""

from __future__ import annotations

import typer

from nptwatch.cli.alerts_try import try_channel

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def alerts() -> None:
    """Try a channel.

    Example: nptwatch alerts test slack
    """


app.command("test")(try_channel)
