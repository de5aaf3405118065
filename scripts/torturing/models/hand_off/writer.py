"""A writer process, and its main thread: ticks, and the reasons to leave (`writer/process.py`)."""

from __future__ import annotations

from keyop.ipc.layout import CLOSING, GONE, OPEN
from torturing.models.hand_off.explore import Actor, Broken, Names, Next, State, World, point
from torturing.models.hand_off.world import Processor, Shared


class Writer:
    """What its threads share, and how it begins and ends."""

    def __init__(self, names: Names, shared: Shared, number: int) -> None:
        self.shared = shared
        self.name = f"writer {number + 1}"
        self.mine = number + 1
        self.processor = Processor(names, shared.scene.buffers)
        runs = number == 0 and shared.scene.running
        count = shared.count
        # The port of each process that it has mapped, plus one.
        known = [port + 1 if runs and names.start[shared.lease[port]] else 0 for port in range(count)]
        self.turn = names.word()
        self.board = names.word(f"{self.name} has board", int(runs))
        self.semaphore = names.word(f"{self.name} waits on semaphore", int(runs))
        self.adopted = [names.word(f"{self.name} knows port of {n + 1}", known[n]) for n in range(count)]
        self.taken = names.words(count, f"{self.name} has taken ring {{}} up to")
        self.found = names.words(count)  # what a recovery found of rings that cannot be adopted yet
        self.planned = names.words(count)
        self.asking = names.words(count)  # whose record asks for a checkpoint
        self.dead = names.words(count)
        self.at, self.sleeps, self.tick_due, self.stop, self.stage, self.look_due = names.words(6)
        names.start[self.sleeps] = int(runs)  # it has slept before
        self.registers = [
            *(self.turn, self.board, self.semaphore, self.at, self.sleeps),
            *(self.tick_due, self.stop, self.stage, self.look_due),
            *(*self.adopted, *self.taken, *self.found, *self.planned, *self.asking, *self.dead),
        ]
        self.threads: list[Actor] = []
        if runs:
            names.start[shared.lock] = self.mine
            names.start[shared.state[1]] = OPEN
            for word in (shared.board, shared.boards_made, shared.semaphore, shared.semaphores_made):
                names.start[word] = 1

    def start(self, w: World, *, turn: bool) -> bool:
        """The process begins, with the lock that says "being started" if it is started on demand."""
        if self.lives(w):
            return False
        w[self.turn] = int(turn)
        self.threads[0].go(w, "take_lock")
        return True

    def lives(self, w: World | State) -> bool:
        """Whether the process is there."""
        return not all(thread.stands_at(w, "ended") for thread in self.threads)

    def kill(self, w: World) -> bool:
        """``kill -9``: its locks fall, what it has stored stays."""
        if not self.lives(w):
            return False
        self.end(w)
        return True

    def end(self, w: World) -> None:
        """The process is no more."""
        self.processor.fence(w)
        if w[self.turn]:
            w[self.shared.starting] = 0
        if w[self.shared.lock] == self.mine and self.shared.rules.lock_falls:
            w[self.shared.lock] = 0
        for register in self.registers:
            w[register] = 0
        for thread in self.threads:
            thread.go(w, "ended")

    def owns(self, w: World) -> None:
        """Who writes has to be the one writer."""
        if w[self.shared.lock] != self.mine:
            raise Broken(f"two writers: {self.name} writes, and does not hold the writer's lock")

    def adopt(self, w: World, *, remade: bool = True) -> None:
        """`Census.scan`: adopt whose lease stands. A port made anew changes nothing in ``run/``: only ticks find it."""
        shared = self.shared
        for number in range(shared.count):
            port = w[shared.port[number]]
            if not w[shared.lease[number]] or w[self.adopted[number]] or not port:
                continue
            if remade or port <= shared.count:
                w[self.adopted[number]] = port
                w[self.taken[number]] = w[shared.committed[port - 1]]
                self.tell_ring(w, number)

    def tell_ring(self, w: World, number: int) -> None:
        """`AttachedPort.take_over`: what the journal says, if it is ahead of what the ring says."""
        shared = self.shared
        found, committed = w[self.found[number]], shared.committed[w[self.adopted[number]] - 1]
        if found > w[committed] and shared.rules.position_in_frame:
            w[committed] = w[self.taken[number]] = found
        w[self.found[number]] = 0


class MainThread(Actor):
    """`process._Main`."""

    def __init__(self, names: Names, process: Writer) -> None:
        runs = names.start[process.board]
        super().__init__(names, f"{process.name}'s main thread", "rest" if runs else "ended")
        self.process = process
        self.shared = process.shared
        self.rules = process.shared.rules
        process.threads.append(self)

    # ---- _tick_until_reason

    def tick(self, w: World) -> bool:
        """Half a second has passed: `request_tick`, and the reasons to leave."""
        process, shared = self.process, self.shared
        if not self.stands_at(w, "rest") or w[process.tick_due]:
            return False
        w[process.tick_due] = 1
        shared.post(w, shared.tokens[w[process.semaphore]])
        if not w[shared.board] and self.rules.emptied_noticed:
            self.go(w, "say_closing")
        return True

    def leave(self, w: World) -> bool:
        """SIGTERM."""
        if not self.stands_at(w, "rest"):
            return False
        self.go(w, "say_closing")
        return True

    def idle(self, w: World) -> bool:
        """It has had no port for so long that it may leave."""
        if not self.stands_at(w, "rest") or any(w[word] for word in self.process.adopted):
            return False
        self.go(w, "say_closing_idle")
        return True

    @point
    def say_closing_idle(self, w: World) -> Next:
        """has had nobody attached for long enough; says CLOSING"""
        w[self.shared.state[w[self.process.board]]] = CLOSING
        return "look_at_leases" if self.rules.leases_after_closing else "nobody_attached"

    @point
    def look_at_leases(self, w: World) -> Next:
        """looks at the leases once more"""
        return "open_again" if any(w[word] for word in self.shared.lease) else "nobody_attached"

    @point
    def nobody_attached(self, w: World) -> Next:
        """leaves, because nobody is attached"""
        for number, (alive, board) in enumerate(self.shared.mapped):
            if w[alive] and w[board] == w[self.process.board]:
                raise Broken(f"process {number + 1} has found this writer open and is attached; it leaves unseen")
        return "stop"

    @point
    def open_again(self, w: World) -> Next:
        """sees that somebody has come; says OPEN again"""
        w[self.shared.state[w[self.process.board]]] = OPEN
        return "rest"

    # ---- serve, _leave_nothing, _remove_names

    @point
    def say_closing(self, w: World) -> Next:
        """is to leave; says CLOSING"""
        w[self.shared.state[w[self.process.board]]] = CLOSING
        return "stop"

    @point
    def stop(self, w: World) -> Next:
        """has its commit thread drain the rings and end"""
        w[self.process.stop] = 1
        self.shared.post(w, self.shared.tokens[w[self.process.semaphore]])
        return "say_gone"

    @point
    def say_gone(self, w: World) -> Next:
        """sees that the rings are drained; says GONE"""
        if not self.process.threads[0].stands_at(w, "ended"):
            return None
        w[self.shared.state[w[self.process.board]]] = GONE
        return "unlink_board" if self.rules.gone_before_unlock else "unlock_early"

    @point
    def unlink_board(self, w: World) -> Next:
        """removes the board's name, and says GONE on what that leads to"""
        if w[self.shared.board] not in (0, w[self.process.board]):
            raise Broken(f"two writers: {self.process.name} says GONE on the board of the next one")
        w[self.shared.board] = 0
        return "unlink_semaphore"

    @point
    def unlink_semaphore(self, w: World) -> Next:
        """removes the semaphore's name"""
        w[self.shared.semaphore] = 0
        return "unlock"

    @point
    def unlock(self, w: World) -> Next:
        """gives the writer's lock up, and is gone"""
        self.process.end(w)
        return "ended"

    @point
    def unlock_early(self, w: World) -> Next:
        """gives the writer's lock up"""
        w[self.shared.lock] = 0
        return "unlink_board"
