"""The thread of a writer that commits (`Committer.run`): rounds, settling, sleep, and the end."""

from __future__ import annotations

from torturing.models.hand_off.explore import Broken, Names, Next, World, point
from torturing.models.hand_off.starting import Starting
from torturing.models.hand_off.writer import Writer

# How far it is with leaving.
_RUNNING, _DRAINING, _LAST_WORDS = range(3)


class CommitThread(Starting):
    """A writer that is open."""

    def __init__(self, names: Names, process: Writer, noted: list[int]) -> None:
        """``noted``: where publishers note for which sleep they have posted."""
        super().__init__(names, process)
        self._noted = noted

    # ---- Committer.commit_round

    def _begin_round(self, w: World) -> str:
        if w[self.process.tick_due]:
            return "tick"
        return "look_at_ring" if self._from(w, 0, self.process.adopted) else self._nothing_there(w)

    @point
    def tick(self, w: World) -> Next:
        """does what is due at a tick: looks for newcomers, finds the dead, sweeps those whose rings are drained"""
        process, shared = self.process, self.shared
        w[process.tick_due] = w[process.look_due] = 0
        process.adopt(w)
        self._find_dead(w)
        for number in range(shared.count):
            port = w[process.adopted[number]] - 1
            if w[process.dead[number]] and w[shared.committed[port]] == w[shared.head[port]]:
                self._sweep(w, number)
        return self._begin_round(w)

    def _find_dead(self, w: World) -> None:
        process, shared = self.process, self.shared
        for number in range(shared.count):
            w[process.dead[number]] = int(bool(w[process.adopted[number]]) and not w[shared.held[number]])

    def _sweep(self, w: World, number: int) -> None:
        process, shared = self.process, self.shared
        process.owns(w)
        port = w[process.adopted[number]] - 1
        for word in (process.adopted, process.dead, process.taken, shared.lease, shared.port):
            w[word[number]] = 0
        w[shared.port_tokens[port]] = w[shared.flag[port]] = 0

    @point
    def look_at_ring(self, w: World) -> Next:
        """looks at a HEAD"""
        process = self.process
        number = w[process.at]
        head, taken = w[self.shared.head[self._port(w)]], w[process.taken[number]]
        if head != taken:
            w[process.planned[number]] = self._plan(w, number, taken, head)
        if self._from(w, number + 1, process.adopted):
            return "look_at_ring"
        if not any(w[word] for word in process.planned):
            return self._nothing_there(w)
        self._from(w, 0, process.planned)
        return "write_frame" if self.rules.frame_before_committed else "settle"

    def _plan(self, w: World, number: int, taken: int, head: int) -> int:
        """Up to where it takes that ring: what asks for a checkpoint is taken alone."""
        for record in self.shared.asks[number]:
            if taken + 1 == record:
                w[self.process.asking[number]] = 1
                return record
            if taken < record <= head:
                return record - 1
        return head

    def _nothing_there(self, w: World) -> str:
        process = self.process
        if not w[process.stop]:
            return "look_around" if w[process.look_due] and self.rules.newcomers_looked_for else "say_asleep"
        # _drain, file_last_words, checkpoint
        if w[process.stage] == _LAST_WORDS:
            return "checkpoint"
        w[process.tick_due] = int(w[process.stage] == _DRAINING)
        w[process.stage] += 1
        return "tick" if w[process.tick_due] else self._begin_round(w)

    @point
    def write_frame(self, w: World) -> Next:
        """writes what it took into a frame and the segments: from now on it is published"""
        process, shared = self.process, self.shared
        process.processor.fence(w)
        process.owns(w)
        w[shared.live] = 1
        for number in range(shared.count):
            if w[process.planned[number]]:
                self._publish(w, number, w[process.planned[number]])
        if not self.rules.frame_before_committed:
            return self._end_round(w)
        if any(w[word] for word in process.asking):
            return self._checkpoint_for(w)
        self._from(w, 0, process.planned)
        return "settle"

    def _publish(self, w: World, number: int, planned: int) -> None:
        process, shared = self.process, self.shared
        first, published = w[process.taken[number]] + 1, w[shared.log[number]]
        w[process.taken[number]] = w[shared.frame[number]] = planned
        if w[process.asking[number]]:
            planned = max(planned, published)  # to ask twice does no harm
        elif first != published + 1:
            what = "doubled: it stands there" if first <= published else "lost: the one before it was never taken"
            raise Broken(f"{process.name} takes message {first} of process {number + 1} into a frame; {what}")
        w[shared.log[number]] = planned

    # ---- Committer._checkpoint_for

    def _checkpoint_for(self, w: World) -> str:
        if not self.rules.rings_told_before_checkpoint:
            return "checkpoint_in_round"
        return self._tell_next(w, 0)

    def _tell_next(self, w: World, first: int) -> str:
        process = self.process
        for number in range(first, self.shared.count):
            if w[process.planned[number]] and not w[process.asking[number]]:
                w[process.at] = number
                return "settle_before"
        return "checkpoint_in_round"

    @point
    def settle_before(self, w: World) -> Next:
        """stores COMMITTED of a port, because a checkpoint is to free the frame"""
        process = self.process
        number = w[process.at]
        if not process.processor.store(w, self.shared.committed[self._port(w)], w[process.planned[number]]):
            return None
        return self._tell_next(w, number + 1)

    @point
    def checkpoint_in_round(self, w: World) -> Next:
        """checkpoints, as somebody has asked for it: the journal is free"""
        self._free_journal(w)
        for word in self.process.asking:
            w[word] = 0
        self._from(w, 0, self.process.planned)
        return "settle"

    # ---- Committer._settle

    @point
    def settle(self, w: World) -> Next:
        """stores COMMITTED of a port"""
        process = self.process
        number = w[process.at]
        if not process.processor.store(w, self.shared.committed[self._port(w)], w[process.planned[number]]):
            return None
        if self._from(w, number + 1, process.planned):
            return "settle"
        if self._readers:
            return "store_end"
        return self._all_stored(w)

    @point
    def store_end(self, w: World) -> Next:
        """stores the channel's end"""
        process, shared = self.process, self.shared
        if not process.processor.store(w, shared.end[w[process.board]], shared.all_messages(w)):
            return None
        for number in self._readers:
            w[process.planned[number]] = int(bool(w[process.adopted[number]]))
        return self._all_stored(w)

    def _all_stored(self, w: World) -> str:
        self._from(w, 0, self.process.planned)
        return "fence" if self.process.processor.slots and self.rules.settle_fence else "look_who_sleeps"

    @point
    def fence(self, w: World) -> Next:
        """makes sure that all this can be seen"""
        self.process.processor.fence(w)
        return "look_who_sleeps"

    @point
    def look_who_sleeps(self, w: World) -> Next:
        """looks whether who waits there sleeps"""
        return "post" if w[self.shared.flag[self._port(w)]] else self._settled_one(w)

    @point
    def post(self, w: World) -> Next:
        """posts that port"""
        self.process.processor.fence(w)
        self.shared.post(w, self.shared.port_tokens[self._port(w)])
        return self._settled_one(w)

    def _settled_one(self, w: World) -> str:
        process = self.process
        number = w[process.at]
        if self._from(w, number + 1, process.planned):
            return "look_who_sleeps"
        if not self.rules.frame_before_committed and w[process.planned[number]]:
            self._from(w, 0, process.planned)
            return "write_frame"
        # It looks around here, too, if it is longer than 2 ms since it did.
        return self._end_round(w)

    def _end_round(self, w: World) -> str:
        for word in (*self.process.planned, *self.process.asking):
            w[word] = 0
        return self._begin_round(w)

    # ---- Committer._sleep

    @point
    def say_asleep(self, w: World) -> Next:
        """found nothing; says that it sleeps"""
        process = self.process
        if not process.processor.store(w, self.shared.asleep[w[process.board]], self._number(w)):
            return None
        if not self.rules.writer_looks_again:
            return "sleep"
        return "fence_of_sleep" if process.processor.slots and self.rules.writer_fence else self._second_look(w)

    def _number(self, w: World) -> int:
        """The number of this sleep. One that nobody has noted stands for one that was never used."""
        if not self.rules.sleeps_numbered:
            return 1
        if not self.rules.numbers_drawn:
            w[self.process.sleeps] += 1
            return w[self.process.sleeps]
        noted = {w[word] for word in self._noted}
        return next(number for number in range(1, len(noted) + 2) if number not in noted)

    @point
    def fence_of_sleep(self, w: World) -> Next:
        """makes sure that this can be seen"""
        self.process.processor.fence(w)
        return self._second_look(w)

    def _second_look(self, w: World) -> str:
        process = self.process
        if w[process.tick_due] or w[process.stop]:
            return "wake"
        return "look_again" if self._from(w, 0, process.adopted) else "sleep"

    @point
    def look_again(self, w: World) -> Next:
        """looks once more at a HEAD"""
        process = self.process
        number = w[process.at]
        if w[self.shared.head[self._port(w)]] != w[process.taken[number]]:
            w[process.at] = 0
            return "wake"
        return "look_again" if self._from(w, number + 1, process.adopted) else "sleep"

    @point
    def sleep(self, w: World) -> Next:
        """takes a token of its semaphore"""
        self.process.processor.fence(w)
        tokens = self.shared.tokens[w[self.process.semaphore]]
        if not w[tokens]:
            return None
        w[tokens] -= 1
        w[self.process.look_due] = 1
        return "wake"

    @point
    def wake(self, w: World) -> Next:
        """says that it no longer sleeps"""
        process = self.process
        if not process.processor.store(w, self.shared.asleep[w[process.board]], 0):
            return None
        return "look_for_work" if self._from(w, 0, process.adopted) else "look_around"

    @point
    def look_for_work(self, w: World) -> Next:
        """looks whether a HEAD has moved: then it does not look around first"""
        process = self.process
        number = w[process.at]
        if w[self.shared.head[self._port(w)]] != w[process.taken[number]]:
            return self._begin_round(w)
        return "look_for_work" if self._from(w, number + 1, process.adopted) else "look_around"

    @point
    def look_around(self, w: World) -> Next:
        """looks for leases that are new, and for processes that say they have left"""
        process, shared = self.process, self.shared
        w[process.look_due] = 0
        process.adopt(w, remade=False)
        if any(w[process.adopted[number]] and w[shared.detached[number]] for number in range(shared.count)):
            self._find_dead(w)
        return self._begin_round(w)

    # ---- the end of Committer.run

    @point
    def checkpoint(self, w: World) -> Next:
        """has drained every ring; checkpoints, which frees the journal, and ends"""
        self._free_journal(w)
        return "ended"
