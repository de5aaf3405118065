"""The gate: many threads on one semaphore, one of which waits for all; a token that is lost costs a knock."""

from __future__ import annotations

import array
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from child import eventually

from keyop.ipc import semaphore
from keyop.ipc.gate import Gate
from keyop.ipc.semaphore import Semaphore

FLAG = 3
LONG_S = 10.0


class Waiting(threading.Thread):
    """A thread that waits at a gate and keeps what came of it."""

    def __init__(self, gate: Gate, ready: Callable[[], bool], timeout: float | None = LONG_S) -> None:
        super().__init__(daemon=True)
        self.outcome: bool | BaseException | None = None
        self._gate = gate
        self._ready = ready
        self._timeout = timeout
        self.start()

    def run(self) -> None:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            self.outcome = self._gate.wait(self._ready, deadline)
        except BaseException as error:
            self.outcome = error

    def ended(self) -> bool:
        self.join(LONG_S)
        return not self.is_alive()


class Scene:
    """A gate, the words it sleeps by, and a position that is moved like the writer does."""

    def __init__(self) -> None:
        name = f"/keyop-test-{os.getpid()}-{os.urandom(3).hex()}"
        self.semaphore: Semaphore = semaphore.create(name, (os.geteuid(), os.getegid()))
        semaphore.unlink(name)
        self.words = memoryview(array.array("I", [0] * 8))
        self.gate = Gate(self.semaphore, self.words, FLAG)
        self.position = 0

    def move(self, position: int, *, post: bool = True) -> None:
        """Store, then post who says that he sleeps."""
        self.position = position
        if post and self.words[FLAG]:
            self.semaphore.post()

    def waiting_for(self, position: int, timeout: float | None = LONG_S) -> Waiting:
        return Waiting(self.gate, lambda: self.position >= position, timeout)

    def asleep(self, followers: int = 0) -> None:
        """Wait until one thread leads and so many follow."""
        eventually(lambda: self.words[FLAG] and len(self.gate._waiters) == followers)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    assert not scene.gate.busy
    assert scene.words[FLAG] == 0
    scene.semaphore.close()


def test_what_is_ready_is_not_waited_for(scene: Scene) -> None:
    assert scene.gate.wait(lambda: True)
    assert scene.gate.wait(lambda: True, deadline=0.0)


def test_a_post_wakes_the_one_who_waits(scene: Scene) -> None:
    waiting = scene.waiting_for(1)
    scene.asleep()
    scene.move(1)
    assert waiting.ended()
    assert waiting.outcome is True


def test_one_post_wakes_all_that_are_ready_and_no_others(scene: Scene) -> None:
    early = [scene.waiting_for(5) for _ in range(8)]
    late = [scene.waiting_for(9) for _ in range(8)]
    scene.asleep(followers=15)
    scene.move(5)
    assert all(one.ended() and one.outcome is True for one in early)
    scene.asleep(followers=7)
    assert not any(one.outcome for one in late)
    scene.move(9)
    assert all(one.ended() and one.outcome is True for one in late)


def test_the_lead_is_handed_on_by_who_is_done(scene: Scene) -> None:
    """The first leads; its position comes first. The rest must not sleep on without a lead."""
    for position in range(1, 9):
        scene.waiting_for(position)
        scene.asleep(followers=position - 1)
    for position in range(1, 9):
        scene.move(position)
        if position < 8:
            scene.asleep(followers=8 - position - 1)
    eventually(lambda: not scene.gate.busy)


def test_a_deadline_ends_the_wait_of_lead_and_follower_alone(scene: Scene) -> None:
    began = time.monotonic()
    lead = scene.waiting_for(1, timeout=0.15)
    scene.asleep()
    follower = scene.waiting_for(1, timeout=0.05)
    stays = scene.waiting_for(1)
    assert follower.ended()
    assert follower.outcome is False
    assert lead.ended()
    assert lead.outcome is False
    assert 0.15 <= time.monotonic() - began < 2
    scene.asleep()
    scene.move(1)
    assert stays.ended()
    assert stays.outcome is True


def test_a_deadline_that_has_passed_is_a_look(scene: Scene) -> None:
    assert scene.gate.wait(lambda: False, time.monotonic() - 1) is False
    waiting = scene.waiting_for(1)
    scene.asleep()
    assert scene.gate.wait(lambda: False, time.monotonic() - 1) is False
    scene.move(1)
    assert waiting.ended()


def test_a_lost_token_costs_a_knock(scene: Scene) -> None:
    waiting = [scene.waiting_for(1) for _ in range(4)]
    scene.asleep(followers=3)
    scene.move(1, post=False)
    scene.gate.knock()
    assert all(one.ended() and one.outcome is True for one in waiting)


def test_spare_tokens_cost_looks(scene: Scene) -> None:
    for _ in range(100):
        scene.semaphore.post()
    waiting = scene.waiting_for(1)
    scene.asleep()
    scene.move(1)
    assert waiting.ended()
    assert waiting.outcome is True


def test_a_clock_that_is_set_back_during_a_wait_costs_a_knock(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sem_timedwait`` then sleeps on far beyond its time-out."""
    real = Semaphore.wait
    monkeypatch.setattr(Semaphore, "wait", lambda self, timeout_s=None: real(self, timeout_s and timeout_s + 3600))
    waiting = scene.waiting_for(1, timeout=0.05)
    scene.asleep()
    until = time.monotonic() + 0.1
    eventually(lambda: time.monotonic() > until)
    scene.gate.knock()
    assert waiting.ended()
    assert waiting.outcome is False


def test_a_time_out_that_comes_early_ends_no_wait(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was set forward."""
    real = Semaphore.wait
    looks = []

    def early(self: Semaphore, timeout_s: float | None = None) -> None:
        looks.append(timeout_s)
        real(self, 0.001)

    monkeypatch.setattr(Semaphore, "wait", early)
    waiting = scene.waiting_for(1)
    eventually(lambda: len(looks) > 20)
    assert waiting.outcome is None
    scene.move(1)
    assert waiting.ended()
    assert waiting.outcome is True


def test_shared_memory_made_anew_under_a_wait(scene: Scene) -> None:
    lead, follower = scene.waiting_for(1), scene.waiting_for(1)
    scene.asleep(followers=1)
    other = Scene()
    old, scene.semaphore, scene.words = scene.words, other.semaphore, other.words
    scene.gate.move(other.semaphore, other.words)
    eventually(lambda: other.words[FLAG])
    scene.move(1)
    assert lead.ended()
    assert follower.ended()
    assert other.words[FLAG] == 0
    assert old[FLAG] in (0, 1)


def test_a_wait_that_is_interrupted_leaves_nobody_asleep(scene: Scene) -> None:
    """Ctrl-C in a follower: what it leaves behind must not be taken for a thread that can lead."""
    lead = scene.waiting_for(1)
    scene.asleep()
    interrupted = threading.Event()

    class Interrupted(Exception):
        pass

    def ready() -> bool:
        if interrupted.is_set():
            raise Interrupted
        return False

    follower = Waiting(scene.gate, ready)
    scene.asleep(followers=1)
    last = Waiting(scene.gate, lambda: scene.position >= 2)
    scene.asleep(followers=2)
    interrupted.set()
    scene.gate._waiters[0].lock.release()
    assert follower.ended()
    assert isinstance(follower.outcome, Interrupted)
    interrupted.clear()
    scene.move(1)
    assert lead.ended()
    scene.asleep()
    scene.move(2)
    assert last.ended()


def test_a_condition_that_fails_is_raised_where_it_belongs(scene: Scene) -> None:
    """The lead looks for all: a condition that raises must not end the lead's wait, nor lose the others."""
    lead = scene.waiting_for(1)
    scene.asleep()
    broken = threading.Event()

    def ready() -> bool:
        if broken.is_set():
            raise ValueError("broken")
        return False

    failing = Waiting(scene.gate, ready)
    scene.asleep(followers=1)
    last = scene.waiting_for(1)
    scene.asleep(followers=2)
    broken.set()
    scene.gate.knock()
    assert failing.ended()
    assert isinstance(failing.outcome, ValueError)
    scene.asleep(followers=1)
    scene.move(1)
    assert lead.ended()
    assert last.ended()
    assert (lead.outcome, last.outcome) == (True, True)


def test_what_comes_while_the_lead_is_handed_on_wakes_its_waiter(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sleeps on the semaphore then, so nobody is posted. Whoever leads next is not always who is ready."""
    lead = scene.waiting_for(1)
    scene.asleep()
    next_lead = scene.waiting_for(9, timeout=None)
    scene.asleep(followers=1)
    came: list[bool] = []
    waiting = Waiting(scene.gate, lambda: bool(came), timeout=None)
    scene.asleep(followers=2)
    nudge = scene.gate._nudge

    def nudge_late() -> None:
        if not came:
            assert not scene.words[FLAG]
            came.append(True)
        nudge()

    monkeypatch.setattr(scene.gate, "_nudge", nudge_late)
    scene.move(1)
    assert lead.ended()
    assert waiting.ended()
    assert waiting.outcome is True
    scene.move(9)
    assert next_lead.ended()


def test_what_comes_before_a_follower_is_in_the_list_wakes_it(scene: Scene) -> None:
    """The lead was posted for it, looked for whom, and has not found it."""
    looks: list[int] = []

    def never() -> bool:
        looks.append(1)
        return scene.position >= 9

    lead = Waiting(scene.gate, never, timeout=None)
    scene.asleep()
    first: list[bool] = []

    def ready() -> bool:
        if first:
            return scene.position >= 1
        first.append(True)
        before = len(looks)
        scene.move(1)
        eventually(lambda: len(looks) > before and scene.words[FLAG])
        return False

    follower = Waiting(scene.gate, ready, timeout=None)
    assert follower.ended()
    assert follower.outcome is True
    scene.move(9)
    assert lead.ended()


@pytest.mark.parametrize("spin_us", [0, 50])
def test_many_threads_and_a_writer_that_moves_on(scene: Scene, spin_us: int) -> None:
    """Each thread waits for its own next position again and again; nobody is left behind, without any knock."""
    rounds, threads = 60, 16
    wanted = [0] * threads
    done = [0] * threads

    def publisher(number: int) -> None:
        for turn in range(1, rounds + 1):
            wanted[number] = turn
            assert scene.gate.wait(lambda turn=turn: done[number] >= turn, time.monotonic() + LONG_S, spin_us)

    publishers = [threading.Thread(target=publisher, args=(number,), daemon=True) for number in range(threads)]
    for one in publishers:
        one.start()
    deadline = time.monotonic() + LONG_S
    while any(one.is_alive() for one in publishers):
        assert time.monotonic() < deadline
        done[:] = wanted
        if scene.words[FLAG]:
            scene.semaphore.post()
        os.sched_yield()
    assert done == [rounds] * threads
