"""Judging looks: pure rules, no clock but the numbers given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nptwatch.store.records import FileState, SeenFile
from nptwatch.watch.readiness import Look, Patience, Track, decide

PATIENCE = Patience(settle_seconds=2, unloadable_after_seconds=600, rescan_seconds=30)


def seen(signature: str = "1:1:1", folder: str = "checkpoint-5") -> SeenFile:
    """Make a sighting."""
    return SeenFile(
        run_path="/r",
        run_name="r",
        root="/",
        path=f"/r/checkpoints/{folder}/npt_weights.pt",
        signature=signature,
        mtime_ns=1,
        size_bytes=1,
    )


def look(
    fingerprint: str | None = "zip:1",
    fault: str | None = None,
    *,
    at: float = 100.0,
    age: float = 0.0,
    signature: str = "1:1:1",
    readable: bool = True,
) -> Look:
    """Make a look."""
    return Look(
        file=seen(signature),
        at=at,
        age_seconds=age,
        fingerprint=fingerprint,
        fault=fault,
        readable=readable,
    )


def test_whole_needs_two_equal_looks() -> None:
    """One look, or a new signature or fingerprint in between, is not enough."""
    track = Track(file=seen())
    assert track.take(look(at=0)) == 0
    assert track.take(look(at=2)) == 2
    assert track.take(look(at=4, signature="2:2:2")) == 0
    assert track.take(look("zip:2", at=6, signature="2:2:2")) == 0
    assert track.take(look("zip:2", at=9, signature="2:2:2")) == 3
    assert decide(look(), 1.9, None, PATIENCE).state is FileState.SETTLING
    assert decide(look(), 2.0, None, PATIENCE).state is FileState.WHOLE


def test_age_alone_makes_nothing_whole_or_unloadable() -> None:
    """An old file too is looked at twice before it is judged."""
    assert decide(look(age=1e6), 0, None, PATIENCE).state is FileState.SETTLING
    assert decide(look(None, "half", age=1e6), 0, 9, PATIENCE).state is FileState.SETTLING
    assert decide(look(None, "half", age=1e6), 2, None, PATIENCE).state is FileState.UNLOADABLE


def test_older_marker_holds_back_until_old() -> None:
    """With a marker behind, a complete file waits, then is taken with the reason said."""
    behind = "training_state.pt beside it is older"
    assert decide(look("zip:1", behind), 599, None, PATIENCE).state is FileState.SETTLING
    decision = decide(look("zip:1", behind), 600, None, PATIENCE)
    assert (decision.state, behind in decision.reason) == (FileState.WHOLE, True)


def test_abandoned_needs_a_newer_step_and_time() -> None:
    """A slow writer is not abandoned at once, nor is the newest step ever."""
    half = look(None, "half")
    assert decide(half, 19, 6, PATIENCE).state is FileState.SETTLING
    assert decide(half, 20, 6, PATIENCE).state is FileState.ABANDONED
    for newest in (None, 4, 5):
        assert decide(half, 500, newest, PATIENCE).state is FileState.SETTLING


def test_unreadable_file_is_never_given_up() -> None:
    """A refusal by the operating system says nothing of the file and may end without a change."""
    refused = look(None, "cannot be read: Permission denied", age=1e6, readable=False)
    decision = decide(refused, 1e6, 9, PATIENCE)
    assert decision.state is FileState.SETTLING
    assert decision.recheck_seconds is not None


@given(
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 9)),
)
def test_every_open_file_has_a_next_look(
    same: float,
    age: float,
    complete: bool,
    fault: bool,
    newest: int | None,
) -> None:
    """What still settles is looked at again, within the rescan interval."""
    reason = "x" if fault or not complete else None
    subject = look("zip:1" if complete else None, reason, age=age)
    decision = decide(subject, same, newest, PATIENCE)
    if decision.state is FileState.SETTLING:
        assert decision.recheck_seconds is not None
        assert 0 < decision.recheck_seconds <= PATIENCE.rescan_seconds
    else:
        assert decision.recheck_seconds is None
        assert same >= PATIENCE.settle_seconds
