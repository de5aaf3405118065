"""A scene made into a model: its processes, what may happen to them, and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from torturing.models.hand_off.attaching import Process, Tick
from torturing.models.hand_off.committing import CommitThread
from torturing.models.hand_off.explore import Broken, Event, Model, Names, State, World
from torturing.models.hand_off.publishing import Thread
from torturing.models.hand_off.rules import Rules
from torturing.models.hand_off.world import Processor, Scene, Shared
from torturing.models.hand_off.writer import MainThread, Writer

Apply = Callable[[World], bool]


class House:
    """All processes of a scene."""

    def __init__(self, scene: Scene, rules: Rules) -> None:
        self.scene = scene
        self.names = names = Names()
        self.shared = shared = Shared(names, rules, scene)
        self.processes = [Process(names, shared, number) for number in range(shared.count)]
        self.threads = [Thread(names, process) for process in self.processes]
        self.ticks = [Tick(names, process) for process in self.processes]
        self.writers = [Writer(names, shared, number) for number in range(scene.writers)]
        noted = [word for p, t in zip(self.processes, self.threads, strict=True) for word in (p.posted, t.asleep)]
        self.commits = [CommitThread(names, writer, noted) for writer in self.writers]
        self.mains = [MainThread(names, writer) for writer in self.writers]
        shared.mapped = [(process.alive, process.board) for process in self.processes]
        shared.new_writer = lambda w: any(writer.start(w, turn=True) for writer in self.writers)

    def model(self) -> Model:
        """What is to be explored."""
        actors = [*self.threads, *self.ticks, *self.commits, *self.mains]
        return Model(self.names, actors, self._events(), self.calm, self.waits, self.scene.free_ticks)

    # ---- what may happen

    def _events(self) -> list[Event]:
        scene = self.scene
        processors = [*((p.name, p.processor) for p in self.processes), *((w.name, w.processor) for w in self.writers)]
        events = [
            Event(f"a store of {name} arrives", partial(_arrive, processor, number))
            for name, processor in processors
            for number in range(scene.buffers)
        ]
        if scene.ticks:
            ticking = [
                *((tick.process.name, tick.begin) for tick in self.ticks),
                *((m.process.name, m.tick) for m in self.mains),
            ]
            events += [Event(f"half a second has passed: {name} ticks", tick, timer=True) for name, tick in ticking]
        events += self._at_most(scene.writer_kills, "kill -9 {}", [(w.name, w.kill) for w in self.writers])
        events += self._at_most(scene.publisher_kills, "kill -9 {}", [(p.name, p.kill) for p in self.processes])
        events += self._at_most(scene.leaves, "SIGTERM to {}", [(m.process.name, m.leave) for m in self.mains])
        events += self._at_most(
            scene.idles, "{} was idle for long enough", [(m.process.name, m.idle) for m in self.mains]
        )
        by_hand = [(w.name, partial(w.start, turn=False)) for w in self.writers]
        events += self._at_most(scene.by_hand, "{} is started by hand", by_hand)
        interrupted = [(t.name, t.interrupt) for t in self.threads]
        events += self._at_most(scene.interrupts, "Ctrl-C in {}", interrupted)
        events += self._at_most(scene.emptied, "{} is emptied", [("/dev/shm", self._empty)])
        return events

    def _at_most(self, times: int, text: str, what: Iterable[tuple[str, Apply]]) -> list[Event]:
        if not times:
            return []
        left = self.names.word("", times)
        return [Event(text.format(name), partial(_while_left, left, apply), fault=True) for name, apply in what]

    def _empty(self, w: World) -> bool:
        for word in (self.shared.board, self.shared.semaphore, *self.shared.port):
            w[word] = 0
        return True

    # ---- what is expected

    def calm(self, state: State) -> bool:
        """Whether all that live have done their programs, and every ring is drained that somebody answers for."""
        shared = self.shared
        for process, thread in zip(self.processes, self.threads, strict=True):
            if not state[process.alive]:
                if state[shared.lock] and state[shared.lease[process.number]]:
                    return False
            elif process.reads:
                if not thread.stands_at(state, "sleep") or state[thread.read_to] != shared.all_messages(state):
                    return False
            elif not thread.stands_at(state, "done") or process.owes(state):
                return False
        return True

    def waits(self, state: State) -> str:
        """What a tick has to find out. Raises `Broken` if no process has ended that could be the reason."""
        shared = self.shared
        reasons = set()
        for process, thread in zip(self.processes, self.threads, strict=True):
            if not state[process.alive]:
                if state[shared.lock] and state[shared.lease[process.number]]:
                    reasons.add("the port of a process that has ended, and what is in its ring")
            elif thread.stands_at(state, "sleep") or (thread.stands_at(state, "done") and process.owes(state)):
                reasons.add(self._why(state, process))
            elif thread.stands_at(state, "look_later"):
                reasons.add("who attaches and finds no open writer")
        return "; ".join(sorted(reasons - {""}))

    def _why(self, state: State, process: Process) -> str:
        shared = self.shared
        thread = self.threads[process.number]
        if process.reads and state[thread.read_to] == shared.all_messages(state):
            return ""
        writer = next(
            (writer for writer in self.writers if state[shared.lock] == writer.mine and writer.lives(state)), None
        )
        if writer is None:
            return "who waits while no writer lives"
        if not process.reads and not process.owes(state):
            if state[process.port] >= shared.count and shared.rules.move_posts_old:
                return "whose ring was made anew, of what the journal said of it"
            raise Broken(f"a wake-up is lost: what {process.name} waits for is committed, and it sleeps until a tick")
        if state[process.board] != state[writer.board]:
            return "who still looks at the board of the writer before"
        if state[writer.adopted[process.number]] != state[process.port] + 1 and self.scene.emptied:
            return "whose port the writer cannot know, because shared memory was emptied"
        raise Broken(f"a wake-up is lost: {process.name} sleeps, its writer lives, and nobody will post before a tick")


def _arrive(processor: Processor, number: int, w: World) -> bool:
    return processor.arrive(w, number)


def _while_left(left: int, apply: Apply, w: World) -> bool:
    if not w[left] or not apply(w):
        return False
    w[left] -= 1
    return True
