"""`nptwatch alerts`: who was told what, seen by whom, and how; once more; a channel tried."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.alerts_try import try_channel
from nptwatch.cli.screen import Column, Screen, print_json, utc_text
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.errors import ConfigError
from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.store.news import EventRecord

EventArgument = Annotated[
    str, typer.Argument(metavar="EVENT", help="Id of an event, or the beginning of it.")
]
EventsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[EVENT]...", help="Ids, or beginnings of them.")
]
RunOption = Annotated[str | None, typer.Option("--run", help="Only of this run.")]
KindOption = Annotated[
    list[str] | None, typer.Option("--kind", help="Only of this kind; repeatable.")
]
StateOption = Annotated[
    list[OutboxState] | None,
    typer.Option("--state", help="Only with a message in this state; repeatable."),
]
UnackedOption = Annotated[bool, typer.Option("--unacked", help="Only what nobody acknowledged.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]
ChannelOption = Annotated[
    list[str] | None,
    typer.Option("--channel", help="Only to this channel, new to it or not; repeatable."),
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]

SHORT_ID = 8
"""Characters of an id that a table shows."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def alerts() -> None:
    """List alerts, acknowledge them, send them again, try a channel.

    Example: nptwatch alerts list --unacked
    """


@app.command("list")
def list_(
    *,
    run: RunOption = None,
    kind: KindOption = None,
    state: StateOption = None,
    unacked: UnackedOption = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List what people were told, or could have been; the last event first.

    Example: nptwatch alerts list --run llama/run1 --json
    """
    with reading(settings_of(config, state_dir, database_url)) as stores:
        found = stores.alarms.events(
            run=run, kinds=kind or (), states=state or (), unacked=unacked, limit=limit
        )
    if as_json:
        print_json(found)
    elif found:
        _print(found, Screen.of_stdout())
    else:
        typer.echo("no such alerts", err=True)


@app.command()
def show(
    event: EventArgument,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Show everything that is known of one event: its numbers, and what became of each message.

    Example: nptwatch alerts show 1b9d6bcd
    """
    with reading(settings_of(config, state_dir, database_url)) as stores:
        found = stores.alarms.event(event)
    if as_json:
        print_json(found)
    else:
        _print_one(found, Screen.of_stdout())


@app.command()
def ack(
    events: EventsArgument = None,
    *,
    everything: AllOption = False,
    by: Annotated[str | None, typer.Option(help="Who has seen them; else the user.")] = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Note that somebody has seen events; `list --unacked` leaves them out. Sends nothing.

    Example: nptwatch alerts ack 1b9d6bcd
    """
    if bool(events) == everything:
        raise ConfigError("name events, as in `nptwatch alerts ack 1b9d6bcd`, or say --all")
    with reading(settings_of(config, state_dir, database_url)) as stores:
        count = stores.alarms.ack(events or None, by or getpass.getuser())
    typer.echo(f"{count} {'event' if count == 1 else 'events'} acknowledged")


@app.command()
def replay(
    event: EventArgument,
    *,
    channel: ChannelOption = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Have an event sent again by the daemon, with the same id; given-up and suppressed ones too.

    Receivers that drop repeated ids drop it, unless it never reached them.

    Example: nptwatch alerts replay 1b9d6bcd --channel slack
    """
    from nptwatch.alerts.channels import channel_names

    settings = settings_of(config, state_dir, database_url)
    known = channel_names(settings.channels)
    for name in channel or ():
        if name not in known:
            raise ConfigError(f"no channel {name!r}: there are {', '.join(known)}")
    with reading(settings) as stores:
        again = stores.alarms.replay(event, channel or ())
    if not again:
        typer.echo("nothing to send: it went to nobody, or is being sent now", err=True)
        raise typer.Exit(1)
    typer.echo(f"goes out again to {', '.join(again)}")


app.command("test")(try_channel)


def _print(found: Sequence[EventRecord], screen: Screen) -> None:
    columns = [
        Column(title="EVENT"),
        Column(title="WHEN"),
        Column(title="KIND"),
        Column(title="RUN", shrinks=True),
        Column(title="STEP", right=True),
        Column(title="GRADE"),
        Column(title="SENT", shrinks=True),
        Column(title="SEEN BY", shrinks=True),
    ]
    screen.table(columns, [_cells(event, screen) for event in found])


def _cells(event: EventRecord, screen: Screen) -> tuple[object, ...]:
    return (
        event.event_id[:SHORT_ID],
        screen.when(event.at),
        f"{event.kind} (late)" if event.late else event.kind,
        event.run,
        event.payload.get("step"),
        event.payload.get("new"),
        _sent(event),
        event.acked_by,
    )


def _sent(event: EventRecord) -> str:
    """Sum up its messages: where all share a state, the state; else each channel's."""
    states = {str(message.state) for message in event.messages}
    if not states:
        return "to nobody"
    if len(states) == 1:
        return states.pop()
    return ", ".join(f"{message.channel} {message.state}" for message in event.messages)


def _print_one(event: EventRecord, screen: Screen) -> None:
    rows = {
        "event": event.event_id,
        "kind": event.kind,
        "at": utc_text(event.at),
        "seen": f"{utc_text(event.acked_at)} by {event.acked_by}" if event.acked_at else None,
        **{
            name: value
            for name, value in event.payload.items()
            if name not in {"kind", "at", "findings"} and value is not None
        },
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        if value is not None:
            screen.say(f"{name:{width}}  {_shown(value)}")
    for finding in event.payload.get("findings") or ():
        screen.say(f"- {_shown(finding.get('text', finding))}")
    screen.say()
    columns = [
        Column(title="CHANNEL"),
        Column(title="STATE"),
        Column(title="TRIES", right=True),
        Column(title="NEXT OR DONE"),
        Column(title="ERROR", shrinks=True),
    ]
    screen.table(
        columns,
        [
            (
                message.channel,
                message.state,
                message.attempts,
                screen.when(message.delivered_at) or utc_text(message.available_at),
                message.error,
            )
            for message in event.messages
        ],
    )


def _shown(value: object) -> str:
    """Write a value; control characters of a path must not reach a terminal."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
