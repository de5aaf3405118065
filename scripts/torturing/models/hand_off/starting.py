"""How a writer comes up: its lock, its board, recovery, the ports that outlived the one before (`start.bring_up`)."""

from __future__ import annotations

from keyop.ipc.layout import GONE, OPEN, STARTING
from torturing.models.hand_off.explore import Actor, Broken, Names, Next, World, point
from torturing.models.hand_off.writer import Writer


class Starting(Actor):
    """The thread that commits, until the board says OPEN. One step for each access that others can see."""

    def __init__(self, names: Names, process: Writer) -> None:
        self.process = process
        self.shared = process.shared
        self.rules = process.shared.rules
        # Who is posted when messages have come.
        self._readers = self.shared.readers
        runs = names.start[process.board]
        begins_at = "look_at_ring" if runs and any(names.start[word] for word in process.adopted) else "say_asleep"
        super().__init__(names, process.name, begins_at if runs else "ended")
        process.threads.append(self)

    def _from(self, w: World, first: int, words: list[int]) -> bool:
        """Go to the next process, from ``first`` on, for which ``words`` hold something; whether there is one."""
        for number in range(first, self.shared.count):
            if w[words[number]]:
                w[self.process.at] = number
                return True
        w[self.process.at] = 0
        return False

    def _port(self, w: World) -> int:
        """The port that it is about to look at."""
        return w[self.process.adopted[w[self.process.at]]] - 1

    # ---- process._take_leases, start.bring_up

    @point
    def take_lock(self, w: World) -> Next:
        """takes the writer's lock, or leaves if somebody has it"""
        process, shared = self.process, self.shared
        if w[shared.lock] and self.rules.one_lock:
            process.end(w)
            return "ended"
        w[shared.lock] = process.mine
        if w[process.turn]:
            w[process.turn] = w[shared.starting] = 0
        return "retire_board" if w[shared.board] else "make_board"

    @point
    def retire_board(self, w: World) -> Next:
        """says GONE on the board that bears the name"""
        if w[self.shared.board]:
            w[self.shared.state[w[self.shared.board]]] = GONE
        return "unlink_board"

    @point
    def unlink_board(self, w: World) -> Next:
        """removes that name"""
        w[self.shared.board] = 0
        return "make_board"

    @point
    def make_board(self, w: World) -> Next:
        """makes its board, with the state STARTING"""
        shared, process = self.shared, self.process
        if w[shared.board]:
            raise Broken(f"two writers: {process.name} finds another's board where its own should be")
        w[shared.boards_made] += 1
        board = w[process.board] = w[shared.board] = w[shared.boards_made]
        w[shared.state[board]] = STARTING
        return "open_semaphore"

    @point
    def open_semaphore(self, w: World) -> Next:
        """opens the writer's semaphore, or makes it"""
        shared = self.shared
        if not w[shared.semaphore]:
            w[shared.semaphores_made] += 1
            w[shared.semaphore] = w[shared.semaphores_made]
        w[self.process.semaphore] = w[shared.semaphore]
        return "recover"

    @point
    def recover(self, w: World) -> Next:
        """recovers from the journal, whose lines stand in the segments then"""
        shared, process = self.shared, self.process
        process.owns(w)
        if not w[shared.live]:
            process.adopt(w)
            return "say_open"
        for number in range(shared.count):
            w[process.found[number]] = w[shared.frame[number]]
        return "adopt" if self.rules.ring_told_before_freed else "free_journal"

    @point
    def adopt(self, w: World) -> Next:
        """adopts the ports whose lease stands, and tells each ring up to where the journal has it"""
        self.process.adopt(w)
        return "look_at_name" if self.rules.ring_told_before_freed else "say_open"

    @point
    def look_at_name(self, w: World) -> Next:
        """looks whether its board's name is still there"""
        if w[self.shared.board] or not self.rules.emptied_noticed_in_recovery:
            return "free_journal"
        w[self.shared.semaphore] = 0
        self.process.end(w)  # the journal is as it was
        return "ended"

    @point
    def free_journal(self, w: World) -> Next:
        """frees the journal"""
        self._free_journal(w)
        return "say_open" if self.rules.ring_told_before_freed else "adopt"

    def _free_journal(self, w: World) -> None:
        self.process.owns(w)
        for word in (self.shared.live, *self.shared.frame):
            w[word] = 0

    @point
    def say_open(self, w: World) -> Next:
        """says OPEN"""
        process, shared = self.process, self.shared
        process.owns(w)
        w[shared.state[w[process.board]]] = OPEN
        if self._readers:
            w[shared.end[w[process.board]]] = shared.all_messages(w)
        process.threads[1].go(w, "rest")
        return "wake_all" if self.rules.wake_all and self._from(w, 0, process.adopted) else self._begin_round(w)

    @point
    def wake_all(self, w: World) -> Next:
        """posts a port: there is a new writer"""
        self.shared.post(w, self.shared.port_tokens[self._port(w)])
        at = w[self.process.at]
        return "wake_all" if self._from(w, at + 1, self.process.adopted) else self._begin_round(w)

    def _begin_round(self, w: World) -> str:
        raise NotImplementedError
