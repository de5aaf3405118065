"""An attached process: how it finds the writer (`WriterLink.map_board`), and its tick."""

from __future__ import annotations

from keyop.ipc.layout import CLOSING, OPEN
from torturing.models.hand_off.explore import Actor, Broken, Names, Next, World, point
from torturing.models.hand_off.world import Processor, Shared

# Between these a thread is in `Gate.wait`.
_AT_GATE = ("say_asleep", "fence_of_wait", "look_again", "sleep", "clear_flag")
# A thread that makes the port anew holds the lock that `put` needs.
_AT_REMAKING = ("publish_port",)


class Process:
    """What its threads share: the board, the semaphore and ``_posted`` of its `WriterLink`, and its port."""

    def __init__(self, names: Names, shared: Shared, number: int) -> None:
        self.shared = shared
        self.number = number
        self.program = program = shared.scene.programs[number]
        self.reads = program.endswith("r")
        self.name = f"{'subscriber' if self.reads else 'publisher'} {number + 1}"
        self.processor = Processor(names, shared.scene.buffers)
        attached = program[0] != "a"
        if attached:
            names.start[shared.lease[number]] = names.start[shared.held[number]] = 1
        open_already = int(attached and shared.scene.running)
        self.alive = names.word("", 1)
        self.board = names.word(f"{self.name} has mapped board", open_already)
        self.writer = names.word(f"{self.name} posts semaphore", open_already)
        self.posted = names.word(f"{self.name} has posted for sleep")
        self.port = names.word("", number)
        self.letter = names.word()
        self.ticked = names.word()
        self.registers = [self.board, self.writer, self.posted, self.port, self.letter, self.ticked]
        self.threads: list[Actor] = []

    def kill(self, w: World) -> bool:
        """``kill -9``: what it has stored stays, its lease falls."""
        if not w[self.alive]:
            return False
        self.end(w)
        return True

    def end(self, w: World) -> None:
        """The process is no more."""
        self.processor.fence(w)
        w[self.alive] = w[self.shared.held[self.number]] = 0
        for register in self.registers:
            w[register] = 0
        for thread in self.threads:
            thread.go(w, "ended")

    def waits(self, w: World) -> bool:
        """Whether a thread waits at a gate."""
        return self.threads[0].stands_at(w, *_AT_GATE)

    def owes(self, w: World | tuple[int, ...]) -> bool:
        """Whether its ring holds what is not committed."""
        port = w[self.port]
        return w[self.shared.head[port]] != w[self.shared.committed[port]]


class Attaching(Actor):
    """What the process's thread and its tick both do, each with a board of its own in hand."""

    mapped = unmapped = ""
    """Where each goes on."""

    def __init__(self, names: Names, process: Process, name: str, begins_at: str) -> None:
        super().__init__(names, name, begins_at)
        self.process = process
        self.shared = process.shared
        self.rules = process.shared.rules
        self.seen_board = names.word()
        self.seen_writer = names.word()
        self.copied = names.word()
        process.registers += [self.seen_board, self.seen_writer, self.copied]
        process.threads.append(self)

    def _no_board(self, w: World) -> str:
        w[self.seen_board] = w[self.seen_writer] = 0
        return self.unmapped

    def _port_is_gone(self, w: World) -> bool:
        return not w[self.shared.port[self.process.number]]

    @point
    def open_board(self, w: World) -> Next:
        """opens the board by its name"""
        w[self.seen_board] = w[self.shared.board]
        return "look_at_board" if w[self.seen_board] else self._no_board(w)

    @point
    def look_at_board(self, w: World) -> Next:
        """looks at that board's state"""
        return "open_semaphore" if w[self.shared.state[w[self.seen_board]]] == OPEN else self._no_board(w)

    @point
    def open_semaphore(self, w: World) -> Next:
        """opens the writer's semaphore by its name"""
        w[self.seen_writer] = w[self.shared.semaphore]
        return "look_at_lock" if w[self.seen_writer] else self._no_board(w)

    @point
    def look_at_lock(self, w: World) -> Next:
        """sees whether the writer's lock is held"""
        if not w[self.shared.lock]:
            return self._no_board(w)
        return "copy_port" if self._port_is_gone(w) else self._take_board(w)

    def _take_board(self, w: World) -> str:
        process = self.process
        w[process.board], w[process.writer] = w[self.seen_board], w[self.seen_writer]
        w[process.posted] = 0
        w[self.seen_board] = w[self.seen_writer] = 0
        return self.mapped

    # ---- Attachment._remake_port_if_gone: before it takes a board, or starts a writer

    @point
    def copy_port(self, w: World) -> Next:
        """sees that the name of its port is gone; copies what stands in it"""
        if any(thread.stands_at(w, *_AT_REMAKING) for thread in self.process.threads):
            return None
        left = w[self.shared.detached[self.process.number]]
        if not self._port_is_gone(w) or (left and self.rules.left_port_stays_gone):
            return self._remade(w)
        if left:
            raise Broken(f"{self.name} makes a port anew that was left and swept: nobody will remove this one")
        w[self.copied] = w[self.shared.committed[w[self.process.port]]]
        return "publish_port"

    @point
    def publish_port(self, w: World) -> Next:
        """gives the copy the port's name, and posts its own thread that sleeps at the old one"""
        shared, process = self.shared, self.process
        old = w[process.port]
        new = w[process.port] = old + shared.count
        w[shared.head[new]], w[shared.committed[new]] = w[shared.head[old]], w[self.copied]
        w[shared.flag[new]] = w[shared.flag[old]]
        w[shared.port[process.number]] = new + 1
        w[self.copied] = 0
        if self.rules.move_posts_old:
            shared.post(w, shared.port_tokens[old])
        return self._remade(w)

    def _remade(self, w: World) -> str:
        return self._take_board(w) if w[self.seen_board] else "start_writer"


class Tick(Attaching):
    """`Attachment.tick`: what a lost wake-up or a dead writer would hide."""

    unmapped = "knock_at_gate"

    def __init__(self, names: Names, process: Process) -> None:
        super().__init__(names, process, f"{process.name}'s tick", "rest")
        self.mapped = "knock" if self.rules.tick_knocks else "knock_at_gate"

    def begin(self, w: World) -> bool:
        """Half a second has passed."""
        process = self.process
        left = w[self.shared.detached[process.number]]
        if not self.stands_at(w, "rest") or not w[process.board] or left:
            return False
        self.go(w, "look_at_state")
        return True

    @point
    def look_at_state(self, w: World) -> Next:
        """looks at its board's state, and whether the name leads to another one"""
        shared, mapped = self.shared, w[self.process.board]
        if self._port_is_gone(w) and not self.rules.copied_without_writer:
            w[self.seen_board], w[self.seen_writer] = w[self.process.board], w[self.process.writer]
            return "copy_port"
        another = w[shared.board] not in (0, mapped)
        return "open_board" if another or w[shared.state[mapped]] >= CLOSING else "knock_at_gate"

    @point
    def knock(self, w: World) -> Next:
        """posts the writer that it has found"""
        self.shared.post(w, self.shared.tokens[w[self.process.writer]])
        return "knock_at_gate"

    @point
    def knock_at_gate(self, w: World) -> Next:
        """posts who waits in its own process, and looks whether a writer lives"""
        process, shared = self.process, self.shared
        w[process.ticked] = int(process.reads)
        if process.waits(w):
            shared.post(w, shared.port_tokens[w[process.port]])
        if w[shared.lock] or not self.rules.tick_looks_at_lock:
            return "rest"
        return "copy_port" if self._port_is_gone(w) else "start_writer"

    @point
    def start_writer(self, w: World) -> Next:
        """starts a writer if somebody here needs one, and none lives or is being started"""
        if self.process.owes(w) or self.process.waits(w):
            self.shared.spawn(w)
        return "rest"
