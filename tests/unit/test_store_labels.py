"""Jobs carry labels; workers take what fits, and first what needs no other base."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from stocking import FULL, QUICK, measured, no_alerts, path_of, whole

from nptwatch.store import migrate
from nptwatch.store.claiming import claim_by
from nptwatch.store.labels import ANYTHING, Offer, Untaken, Waiting, untaken, why_not
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import WholeFile

pytestmark = pytest.mark.both_engines

LLAMA, QWEN = "meta-llama/Llama-3.2-1B", "Qwen/Qwen3-0.6B"


def labelled(
    run: str, step: int, base: str | None = LLAMA, gpu_mib: int | None = None, **about: Any
) -> WholeFile:
    """Give a whole file with labels."""
    return replace(whole(run, step, **about), base_model=base, min_gpu_mib=gpu_mib)


def take(queue: Queue, offer: Offer = ANYTHING, held: str | None = None) -> tuple[str, int] | None:
    """Claim; give run and step."""
    claim = queue.claim("w", lease_seconds=60, offer=offer, held=held)
    if claim is None:
        return None
    assert claim.step is not None
    return claim.run_name, claim.step


def take_all(queue: Queue, offer: Offer = ANYTHING, held: str | None = None) -> list[str]:
    """Claim until there is nothing; give runs and steps."""
    taken = []
    while (one := take(queue, offer, held)) is not None:
        taken.append(f"{one[0]}{one[1]}")
    return taken


def test_gpu_memory_is_a_minimum(catalog: Catalog, queue: Queue) -> None:
    """Too small a GPU leaves the job to others; as much is enough; none known is not bound."""
    catalog.admit(labelled("big", 1, gpu_mib=40_000), QUICK)
    catalog.admit(labelled("small", 1, gpu_mib=8_000), QUICK)
    catalog.admit(labelled("any", 1), QUICK)
    small = Offer(gpu_mib=8_000)
    assert queue.has_queued(small)
    assert take_all(queue, small) == ["any1", "small1"]
    assert queue.has_queued()
    assert not queue.has_queued(small)
    assert take_all(queue) == ["big1"]


@pytest.mark.parametrize(
    ("bases", "fits"),
    [
        ((), {"llama", "qwen", "none", "odd"}),
        (("meta-llama/*",), {"llama", "none"}),
        (("*Llama*", "Qwen/Qwen?-0.6B"), {"llama", "qwen", "none"}),
        (("META-LLAMA/*",), {"none"}),
        (("/models/o.d (1)",), {"none"}),
        (("/models/o+d (1)",), {"odd", "none"}),
        (("Llama",), {"none"}),
    ],
)
def test_bases_are_globs(
    catalog: Catalog, queue: Queue, bases: tuple[str, ...], fits: set[str]
) -> None:
    """On the whole name; a job whose base nobody names fits, so that somebody says so."""
    names = {"llama": LLAMA, "qwen": QWEN, "none": None, "odd": "/models/o+d (1)"}
    for run, base in names.items():
        catalog.admit(labelled(run, 1, base), QUICK)
    assert set(take_all(queue, Offer(bases=bases))) == {f"{run}1" for run in fits}


def test_what_a_host_does_not_see_is_left_to_others(catalog: Catalog, queue: Queue) -> None:
    """By the run's folder, or by the root that it was found below."""
    catalog.admit(labelled("a", 1), QUICK)
    catalog.admit(labelled("b", 1), QUICK)
    assert take(queue, Offer(blind=("/exp",))) is None
    assert not queue.has_queued(Offer(blind=("/exp",)))
    assert take_all(queue, Offer(blind=("/exp/a", "/elsewhere"))) == ["b1"]
    assert take_all(queue) == ["a1"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    gpu_mib=st.sampled_from([None, 0, 10, 20]),
    needs=st.sampled_from([None, 10, 11]),
    bases=st.lists(st.sampled_from(["*", "a?", "b", "x*/[y]"]), max_size=2),
    base=st.sampled_from([None, "a", "ab", "b", "xx/[y]", "A?"]),
    blind=st.sampled_from([(), ("/exp",), ("/exp/a",), ("/exp/b",)]),
)
def test_statement_and_reason_agree(
    catalog: Catalog,
    queue: Queue,
    gpu_mib: int | None,
    needs: int | None,
    bases: list[str],
    base: str | None,
    blind: tuple[str, ...],
) -> None:
    """A worker takes a job exactly if there is no reason why not."""
    catalog.admit(labelled("a", 1, base, needs), QUICK)
    queue.retry([job.job_id for job in queue.jobs()])
    (waiting,) = queue.waiting()
    offer = Offer(gpu_mib=gpu_mib, bases=tuple(bases), blind=blind)
    taken = queue.claim("w", lease_seconds=60, offer=offer)
    assert (taken is None) == (why_not(offer, waiting) is not None)
    queue.release_held("w", reason="again")
    queue.cancel()


def test_held_base_goes_first_among_equals(
    catalog: Catalog, queue: Queue, clock: FakeClock
) -> None:
    """Urgency, then a run's newest, then the base in memory, then the last written."""
    catalog.admit(labelled("p", 1, QWEN, mtime_ns=10), QUICK)
    for step in (1, 2):
        catalog.admit(labelled("l", step, LLAMA, mtime_ns=100 + step), QUICK)
        catalog.admit(labelled("q", step, QWEN, mtime_ns=200 + step), QUICK)
    catalog.admit(labelled("m", 9, LLAMA, mtime_ns=50), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    assert claim.run_name == "q"
    queue.release_held("w", reason="again")
    queue.ask(path_of("p", "checkpoint-1"), FULL, because="a person asks")
    order = ["p1", "l2", "m9", "q2", "p1", "l1", "q1"]
    assert take_all(queue, held=LLAMA) == order


def test_preference_gives_way_to_what_does_not_fit(catalog: Catalog, queue: Queue) -> None:
    """The first of all is the first that the worker can take; what it cannot does not count."""
    catalog.admit(labelled("big", 5, QWEN, 40_000, mtime_ns=300), QUICK)
    catalog.admit(labelled("a", 5, QWEN, mtime_ns=200), QUICK)
    catalog.admit(labelled("b", 5, LLAMA, mtime_ns=100), QUICK)
    assert take_all(queue, Offer(gpu_mib=8_000), held=LLAMA) == ["b5", "a5"]


def test_a_held_base_without_jobs_takes_what_is_first(catalog: Catalog, queue: Queue) -> None:
    """No worker idles while there is work."""
    catalog.admit(labelled("a", 1, QWEN), QUICK)
    catalog.admit(labelled("n", 1, None), QUICK)
    assert take_all(queue, held=LLAMA) == ["n1", "a1"]
    assert take(queue, held=LLAMA) is None


def test_waiting_jobs_of_the_held_base_are_not_due_early(
    catalog: Catalog, queue: Queue, clock: FakeClock
) -> None:
    """A pause is a pause, whatever base is held."""
    catalog.admit(labelled("l", 1, LLAMA), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    queue.release(claim, "w", reason="memory", delay_seconds=30)
    catalog.admit(labelled("q", 1, QWEN), QUICK)
    assert take_all(queue, held=LLAMA) == ["q1"]
    clock.advance(31)
    assert take_all(queue, held=LLAMA) == ["l1"]


def test_labels_follow_what_is_corrected(catalog: Catalog, queue: Queue) -> None:
    """Another base in the config, another minimum in the settings: waiting jobs have them."""
    catalog.admit(labelled("a", 1, QWEN, 40_000), QUICK)
    catalog.admit(labelled("a", 1, LLAMA, None), QUICK)
    (job,) = queue.jobs()
    assert (job.base_model, job.min_gpu_mib) == (LLAMA, None)
    catalog.admit(labelled("a", 1, LLAMA, 8_000), QUICK)
    (job,) = queue.jobs()
    assert (job.base_model, job.min_gpu_mib) == (LLAMA, 8_000)


def test_the_settings_base_beats_the_checkpoints(catalog: Catalog, queue: Queue) -> None:
    """What a job will be measured against is its label, whoever asks for it."""
    request = replace(QUICK, base_model=QWEN)
    catalog.admit(labelled("a", 1, LLAMA), request)
    claim = queue.claim("w", lease_seconds=60, offer=Offer(bases=("Qwen/*",)))
    assert claim is not None
    queue.ask_again(claim.job_id, "w", replace(request, settings_hash="s2", base_model="other"))
    assert {job.base_model for job in queue.jobs() if job.state == "queued"} == {"other"}


def test_a_follow_up_has_the_checkpoints_labels(catalog: Catalog, queue: Queue) -> None:
    """The full diagnostic needs what the quick one needs."""
    catalog.admit(labelled("a", 1, LLAMA, 8_000), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    queue.finish(claim, "w", measured(), no_alerts)
    queue.ask(path_of("a", "checkpoint-1"), FULL, because="me")
    assert {(job.base_model, job.min_gpu_mib) for job in queue.jobs()} == {(LLAMA, 8_000)}


def test_offers_are_written_down(database: Database, clock: FakeClock) -> None:
    """What a worker takes is known to whoever asks why a job waits."""
    workers = Workers(database, clock=clock)
    offer = Offer(gpu_mib=81_000, bases=("meta-llama/*",))
    workers.register("w", "host", 1, "cuda:0", offer)
    assert workers.rows()[0].offer == offer
    workers.beat("w", state="idle", offer=replace(offer, blind=("/exp",)))
    workers.beat("w", state="idle")
    assert workers.rows()[0].offer == replace(offer, blind=("/exp",))


def test_untaken_jobs_are_counted_by_reason(catalog: Catalog, queue: Queue) -> None:
    """Those that one worker takes are not among them; nor is anything where nobody works."""
    for step in (1, 2):
        catalog.admit(labelled("big", step, LLAMA, 40_000), QUICK)
    catalog.admit(labelled("other", 1, QWEN), QUICK)
    catalog.admit(labelled("fine", 1, LLAMA, 8_000), QUICK)
    offer = Offer(gpu_mib=8_192, bases=("meta-llama/*",))
    found = untaken(queue.waiting(), [offer, offer])
    assert [(each.jobs, each.why) for each in found] == [
        (2, "needs 39.06 GiB of GPU memory, the worker has 8"),
        (1, "is of base Qwen/Qwen3-0.6B, the worker takes meta-llama/*"),
    ]
    assert untaken(queue.waiting(), [offer, ANYTHING]) == []
    assert untaken(queue.waiting(), []) == []


def test_reasons_of_several_workers_are_told_together(clock: FakeClock) -> None:
    """Each once: who looks needs to know what would have to be different."""
    job = Waiting(
        base_model=QWEN,
        min_gpu_mib=2_048,
        run_path="/exp/a",
        run_root="/exp",
        jobs=3,
        oldest_at=clock(),
    )
    offers = [Offer(gpu_mib=1_024), Offer(blind=("/exp",)), Offer(gpu_mib=1_024)]
    why = (
        "needs 2 GiB of GPU memory, the worker has 1; "
        "lies below /exp, which the worker's host does not see"
    )
    assert untaken([job], offers) == [Untaken(jobs=3, oldest_at=clock(), why=why)]


def test_each_claim_walks_an_index(catalog: Catalog, database: Database, clock: FakeClock) -> None:
    """With and without a base in memory: no scan of the jobs, and none is sorted."""
    for step in range(300):
        base = QWEN if step % 30 else LLAMA
        catalog.admit(labelled(f"r{step % 20}", step, base), QUICK)
    with database.begin() as connection:
        connection.execute(text("ANALYZE"))
    for held in (None, LLAMA):
        statement, about = claim_by(Offer(gpu_mib=1), held, database.paths)
        about |= {"now": clock(), "until": clock(), "worker": "w"}
        plan = plan_of(database, statement, about)
        assert "ix_jobs_claim" in plan
        assert ("ix_jobs_claim_base" in plan) == (held is not None), plan
        for slow in ("TEMP B-TREE", "Sort", "Seq Scan on jobs", "SCAN candidate\n"):
            assert slow not in plan, plan


def plan_of(database: Database, statement: Any, about: dict[str, Any]) -> str:
    """Give how the engine runs a statement; runs nothing."""
    compiled = statement.compile(dialect=database.engine.dialect)
    ready = {
        name: compiled._bind_processors.get(name, lambda value: value)(value)
        for name, value in (compiled.construct_params(about)).items()
    }
    prefix = "EXPLAIN QUERY PLAN " if database.path is not None else "EXPLAIN "
    values: Any = ready
    if compiled.positional:
        values = tuple(ready[name] for name in compiled.positiontup)
    with database.begin() as connection:
        if database.path is None:
            # of a table so small Postgres would read it all
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        rows = connection.exec_driver_sql(prefix + compiled.string, values).all()
    return "\n".join(str(row[-1]) for row in rows) + "\n"


@pytest.mark.changes_schema
def test_jobs_of_an_older_version_are_labelled(
    catalog: Catalog, queue: Queue, database: Database
) -> None:
    """Open jobs get the base that their checkpoint names, when the schema is upgraded."""
    catalog.admit(labelled("a", 1, LLAMA), QUICK)
    migrate.downgrade(database, "0005")
    migrate.upgrade(database)
    (job,) = queue.jobs()
    assert (job.base_model, job.min_gpu_mib) == (LLAMA, None)
    assert Workers(database).rows() == []
