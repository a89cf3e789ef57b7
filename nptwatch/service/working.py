"""What a worker does from its settings to its exit code, whoever started it."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import structlog

from nptwatch.alerts.channels import channel_names
from nptwatch.alerts.rules import make_rules
from nptwatch.errors import ConfigError, NptwatchError
from nptwatch.logs import configure_logs
from nptwatch.service.build import build_keeper, is_sqlite, open_stores, request_of
from nptwatch.service.handover import parse_settings
from nptwatch.settings import FULL
from nptwatch.store.engine import utc_now
from nptwatch.store.listening import JobListener
from nptwatch.worker.keeper_thread import KeeperThread
from nptwatch.worker.loop import WorkerLoop
from nptwatch.worker.offering import offer_by
from nptwatch.worker.policy import FullPolicy, KeepPolicy
from nptwatch.worker.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nptwatch.settings import Settings
    from nptwatch.worker.loop import Diagnoser
    from nptwatch.worker.wake import Wake

    MakeDiagnoser = Callable[[Settings, Callable[[], datetime]], Diagnoser]

DEFAULT_DIAGNOSER = "nptwatch.worker.gpu:GpuDiagnoser"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one worker is to do.

    Attributes:
        worker_id: its name in the database.
        until_empty: end when nothing is queued (see WorkerLoop).
        diagnoser: `module:factory`, called with settings and clock, gives what measures; tests
            give their own.
    """

    worker_id: str
    until_empty: bool = False
    diagnoser: str = DEFAULT_DIAGNOSER


def work(
    line: bytes,
    assignment: Assignment,
    *,
    wake: Wake,
    ready: Callable[[], None],
    abandon: Callable[[], None],
) -> int:
    """Be a worker until it is stopped or ends by itself; errors are logged.

    Args:
        line: the settings, as `dump_settings` wrote them.
        ready: called once it is about to claim.
        abandon: ends the process (see WorkerLoop).

    Returns:
        The exit code.
    """
    try:
        settings = parse_settings(line)
        configure_logs(
            level=settings.log.level,
            form=settings.log.form,
            bind={"worker": assignment.worker_id},
        )
        return _loop(settings, assignment, wake=wake, ready=ready, abandon=abandon)
    except NptwatchError as error:
        log.error("worker_failed", error=str(error), kind=type(error).__name__)  # noqa: TRY400
        return error.exit_code
    except Exception:
        log.exception("worker_failed")
        return 1


def _loop(
    settings: Settings,
    assignment: Assignment,
    *,
    wake: Wake,
    ready: Callable[[], None],
    abandon: Callable[[], None],
) -> int:
    stores = open_stores(settings, application=f"nptwatch worker {assignment.worker_id}")
    stop_keeping = threading.Event()
    keeper = KeeperThread(build_keeper(settings, stores, stop_keeping.is_set), stop_keeping)
    diagnoser = _make_diagnoser(assignment.diagnoser, settings)
    loop = WorkerLoop(
        queue=stores.queue,
        workers=stores.workers,
        diagnoser=diagnoser,
        rules=make_rules(
            settings.alerts, channel_names(settings.channels), request_of(settings, FULL)
        ),
        settings=settings.worker,
        request=partial(request_of, settings),
        unloadable_after_seconds=settings.watch.unloadable_after_seconds,
        worker_id=assignment.worker_id,
        wake=wake,
        abandon=abandon,
        follow=FullPolicy(settings.full, request_of(settings, FULL)).follow,
        keep=KeepPolicy(settings.kept).why,
        on_wanted=keeper.nudge,
        until_empty=assignment.until_empty,
        offer=offer_by(settings.worker, diagnoser.device),
        sight=Sight(shared=not is_sqlite(settings)),
    )
    keeper.nudge()  # where no daemon runs, nobody else does what the last worker left
    with closing(keeper), JobListener(stores.database, wake.nudge):
        return loop.run(ready)


def _make_diagnoser(name: str, settings: Settings) -> Diagnoser:
    """Call the factory that `name` names; imported here, so that a torch that fails is logged."""
    module, _, factory = name.partition(":")
    try:
        make: MakeDiagnoser = getattr(import_module(module), factory)
    except (ImportError, AttributeError) as exc:
        message = f"diagnoser {name} cannot be imported: {exc}"
        raise ConfigError(message) from exc
    return make(settings, utc_now)
