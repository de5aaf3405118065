"""The thread of an attached process: it attaches, sends, waits, reads and leaves, as its program says."""

from __future__ import annotations

from keyop.ipc.layout import CLOSING, OPEN
from torturing.models.hand_off.attaching import Attaching, Process
from torturing.models.hand_off.explore import Broken, Names, Next, World, point

_BEGINS_AT = {"a": "make_port", "s": "look_at_state", "c": "look_at_state", "w": "look", "r": "note_end", "l": "close"}


class Thread(Attaching):
    """`Attachment` as `publish` and a subscription use it."""

    mapped, unmapped = "knock", "look_for_writer"

    def __init__(self, names: Names, process: Process) -> None:
        first = process.program[0]
        begins_at = _BEGINS_AT[first]
        if first == "a" and not process.shared.rules.port_before_state:
            begins_at = "open_board"
        super().__init__(names, process, process.name, begins_at)
        self.number = process.number
        # The port whose semaphore it sleeps on, plus one.
        self.at_port = names.word()
        self.asleep = names.word()
        self.seen_end = names.word()
        self.read_to = names.word(f"{process.name} has read" if process.reads else "")
        process.registers += [self.at_port, self.asleep, self.seen_end, self.read_to]

    def _next(self, w: World) -> str:
        """On to the next letter of its program."""
        letter = self.process.letter
        w[letter] += 1
        program = self.process.program
        return "done" if w[letter] == len(program) else _BEGINS_AT[program[w[letter]]]

    # ---- Attachment._attach, WriterLink.reach

    @point
    def make_port(self, w: World) -> Next:
        """makes its port, and gives its lease the name by which the writer finds both"""
        w[self.shared.lease[self.number]] = w[self.shared.held[self.number]] = 1
        return "open_board" if self.rules.port_before_state else self._next(w)

    @point
    def look_for_writer(self, w: World) -> Next:
        """has no board; sees whether a writer lives"""
        if w[self.shared.lock]:
            return "look_later"
        return "copy_port" if self._port_is_gone(w) else "start_writer"

    @point
    def start_writer(self, w: World) -> Next:
        """starts a writer, unless one lives or is being started"""
        self.shared.spawn(w)
        return "look_later"

    @point
    def look_later(self, w: World) -> Next:
        """looks again 5 ms later"""
        shared = self.shared
        usable = w[shared.board] and w[shared.state[w[shared.board]]] == OPEN and w[shared.semaphore]
        # In this model it sleeps until there is something to be seen.
        if (usable and w[shared.lock]) or not (w[shared.lock] or w[shared.starting]):
            return "open_board"
        return None

    @point
    def knock(self, w: World) -> Next:
        """posts the writer: somebody has come"""
        self.shared.post(w, self.shared.tokens[w[self.process.writer]])
        if not w[self.shared.lease[self.number]]:
            return "make_port"
        return "put" if self.process.program[w[self.process.letter]] in "sc" else self._next(w)

    # ---- Attachment.send, WriterLink.wake

    @point
    def look_at_state(self, w: World) -> Next:
        """is to send; looks at the state of the board that it has mapped"""
        board = w[self.process.board]
        return "put" if board and w[self.shared.state[board]] < CLOSING else "open_board"

    @point
    def put(self, w: World) -> Next:
        """puts a record into its ring, and stores HEAD"""
        process = self.process
        if any(thread.stands_at(w, "publish_port") for thread in process.threads):
            return None  # its lock is taken
        processor, head = process.processor, self.shared.head[w[process.port]]
        if not processor.store(w, head, processor.load(w, head) + 1):
            return None
        return "fence" if processor.slots and self.rules.publisher_fence else "look_at_asleep"

    @point
    def fence(self, w: World) -> Next:
        """makes sure that HEAD can be seen"""
        self.process.processor.fence(w)
        return "look_at_asleep"

    @point
    def look_at_asleep(self, w: World) -> Next:
        """looks whether the writer sleeps, and whether it has posted for that sleep already"""
        process, processor = self.process, self.process.processor
        flag = self.shared.asleep[w[process.board]]
        asleep = processor.load(w, flag)
        if not asleep or asleep == w[process.posted]:
            return self._next(w)
        w[self.asleep] = asleep
        if not self.rules.only_sleeper_clears:
            processor.store(w, flag, 0)
        elif not self.rules.posted_before_noted:
            w[process.posted] = asleep
        return "post"

    @point
    def post(self, w: World) -> Next:
        """posts the writer, and notes for which sleep"""
        process = self.process
        process.processor.fence(w)
        self.shared.post(w, self.shared.tokens[w[process.writer]])
        if self.rules.only_sleeper_clears:
            w[process.posted] = w[self.asleep]
        w[self.asleep] = 0
        return self._next(w)

    def interrupt(self, w: World) -> bool:
        """Ctrl-C just before the post: the program goes on behind that publish, with another one."""
        following = self.process.program[w[self.process.letter] + 1 :]
        if not self.stands_at(w, "post") or not following.startswith("s"):
            return False
        w[self.asleep] = 0
        self.go(w, self._next(w))
        return True

    # ---- Attachment.wait, Gate._lead_until

    def _settled(self, w: World) -> bool:
        shared, process = self.shared, self.process
        load, port = process.processor.load, w[process.port]
        head = load(w, shared.head[port])
        if load(w, shared.committed[port]) < head:
            return False
        if w[shared.log[self.number]] < head:
            raise Broken(f"lost: {process.name} is told that its message is committed, and no frame has it")
        return True

    def _ready(self, w: World) -> bool:
        return self._news(w) if self.process.reads else self._settled(w)

    @point
    def look(self, w: World) -> Next:
        """looks whether what it waits for is there"""
        return self._go_on(w) if self._ready(w) else "say_asleep"

    def _go_on(self, w: World) -> str:
        return self._read_again(w) if self.process.reads else self._next(w)

    @point
    def say_asleep(self, w: World) -> Next:
        """says that it sleeps"""
        processor, port = self.process.processor, w[self.process.port]
        if not processor.store(w, self.shared.flag[port], 1):
            return None
        w[self.at_port] = port + 1
        if not self.rules.waiter_looks_again:
            return "sleep"
        return "fence_of_wait" if processor.slots and self.rules.waiter_fence else "look_again"

    @point
    def fence_of_wait(self, w: World) -> Next:
        """makes sure that this can be seen"""
        self.process.processor.fence(w)
        return "look_again"

    @point
    def look_again(self, w: World) -> Next:
        """looks once more"""
        return "clear_flag" if self._ready(w) else "sleep"

    @point
    def sleep(self, w: World) -> Next:
        """takes a token of its semaphore"""
        self.process.processor.fence(w)
        tokens = self.shared.port_tokens[w[self.at_port] - 1]
        if not w[tokens]:
            return None
        w[tokens] -= 1
        return "say_asleep"

    @point
    def clear_flag(self, w: World) -> Next:
        """says that it no longer sleeps"""
        if not self.process.processor.store(w, self.shared.flag[w[self.process.port]], 0):
            return None
        w[self.at_port] = 0
        return self._go_on(w)

    # ---- Subscription._deliver, Tail

    @point
    def note_end(self, w: World) -> Next:
        """remembers the channel's end and that a tick has passed"""
        w[self.seen_end] = w[self.shared.end[w[self.process.board]]]
        w[self.process.ticked] = 0
        return "read" if self.rules.end_before_read else "look"

    def _read_again(self, w: World) -> str:
        w[self.at_port] = 0
        return "note_end" if self.rules.end_before_read else "read"

    @point
    def read(self, w: World) -> Next:
        """reads what stands in the segments"""
        there = self.shared.all_messages(w)
        if w[self.read_to] < there:
            w[self.read_to] = there
            return self._read_again(w)
        return "look" if self.rules.end_before_read else "note_end"

    def _news(self, w: World) -> bool:
        return w[self.shared.end[w[self.process.board]]] != w[self.seen_end] or bool(w[self.process.ticked])

    # ---- Attachment._leave

    @point
    def close(self, w: World) -> Next:
        """says that it detaches"""
        w[self.shared.detached[self.number]] = 1
        return "give_lease_up"

    @point
    def give_lease_up(self, w: World) -> Next:
        """gives its lease up"""
        w[self.shared.held[self.number]] = 0
        return "knock_at_leaving"

    @point
    def knock_at_leaving(self, w: World) -> Next:
        """posts the writer: it has left"""
        self.shared.post(w, self.shared.tokens[w[self.process.writer]])
        w[self.process.alive] = 0  # for the others; a tick that is under way goes on
        return "ended"
