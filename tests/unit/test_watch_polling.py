"""When a polled folder is due: often while it changes, seldom else, and never at others' cost."""

from __future__ import annotations

import pytest

from nptwatch.watch.polling import Poller


class Clock:
    """A poller, and the time that passes for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.poller = Poller(shortest_seconds=1.0, longest_seconds=8.0)
        self.poller.poll(["/a"], self.now)

    def look(self, state: int, *, took: float = 0.0) -> float:
        """Let time pass until the folder is due, look, give how long it was."""
        due = self.poller.next_due()
        assert due is not None
        assert self.poller.due(due - 0.001) == []
        assert self.poller.due(due) == ["/a"]
        waited = due - self.now
        self.now = due + took
        self.poller.looked("/a", state, begun=due, now=self.now)
        return waited


@pytest.fixture
def clock() -> Clock:
    """A poller of one folder."""
    return Clock()


def test_pauses_grow_to_their_bound_while_nothing_happens(clock: Clock) -> None:
    """By half each time, from the shortest to the longest."""
    pauses = [clock.look(7) for _ in range(9)]
    assert pauses[:4] == pytest.approx([1.0, 1.0, 1.5, 2.25])
    assert pauses == sorted(pauses)
    assert pauses[-2:] == [8.0, 8.0]


def test_a_change_quickens(clock: Clock) -> None:
    """After it the pause is the shortest again, and grows anew."""
    for _ in range(9):
        clock.look(7)
    assert clock.look(8) == 8.0
    assert clock.look(9) == 1.0
    assert clock.look(9) == 1.0
    assert clock.look(9) == pytest.approx(1.5)


def test_a_tree_that_takes_long_is_left_alone_for_longer(clock: Clock) -> None:
    """The watcher spends about a tenth of its time on a walk, however busy the tree is."""
    clock.look(1, took=3.0)
    assert clock.look(2) == pytest.approx(30.0)
    assert clock.look(3) == 1.0


def test_a_scan_puts_the_next_poll_off(clock: Clock) -> None:
    """What has just been read is not read again at once."""
    clock.now += 0.9
    clock.poller.put_off(clock.now)
    assert clock.look(1) == 1.0


def test_folders_come_and_go(clock: Clock) -> None:
    """A folder keeps its pause while it is polled; one below another is not polled twice."""
    for _ in range(4):
        clock.look(7)
    before = clock.poller.next_due()
    clock.poller.poll(["/a", "/a/b", "/ab", "/c"], clock.now)
    assert sorted(clock.poller.due(clock.now + 9)) == ["/a", "/ab", "/c"]
    assert [clock.poller.polls(p) for p in ("/a/b/x", "/ab/x", "/abc", "/")] == [
        *(True, True),
        *(False, False),
    ]
    clock.poller.poll(["/a"], clock.now)
    assert clock.poller.next_due() == before
    clock.poller.poll([], clock.now)
    assert clock.poller.next_due() is None
