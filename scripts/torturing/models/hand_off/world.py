"""What the processes share: the board, the ports, semaphores, the writer's lock, the journal; and the processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keyop.ipc.layout import STATE_NAMES
from torturing.models.hand_off.explore import Names, World
from torturing.models.hand_off.rules import Rules

_STATES = ["none", *STATE_NAMES.values()]


@dataclass(frozen=True)
class Scene:
    """Who is there and what may happen."""

    programs: tuple[str, ...] = ("sw", "sw")
    """What each process does: ``a`` attach, ``s`` send, ``c`` ask for a checkpoint, ``w`` wait until all that was sent
    is committed, ``l`` leave; or ``r``, read whatever comes. Who does not begin with ``a`` is attached at the start."""
    running: bool = True
    """A writer is open at the start; else there is none."""
    writer_kills: int = 0
    publisher_kills: int = 0
    leaves: int = 0
    """How often a writer is told to leave (SIGTERM)."""
    idles: int = 0
    """How often a writer without ports may find that it has been idle for long enough."""
    by_hand: int = 0
    """How often somebody starts a writer by hand, whether one lives or not."""
    interrupts: int = 0
    """How often Ctrl-C may come just before a post."""
    emptied: int = 0
    """How often all names in shared memory are removed (logind's RemoveIPC)."""
    writers: int = 1
    """How many writer processes there may be at a time."""
    ticks: bool = True
    free_ticks: bool = False
    """Ticks come at any moment, not only when nothing else moves."""
    buffers: int = 0
    """So many stores of each process may be under way, and arrive in order; 0: everybody sees them at once."""
    tokens: int = 2
    """More tokens than that need not be told apart: each means "look again"."""

    @property
    def boards(self) -> int:
        """How many boards are made at most, the first one included."""
        return self.writers + self.writer_kills + self.leaves + self.idles + self.by_hand + self.emptied


class Shared:
    """The words that more than one process looks at. ``[0]`` of boards and semaphores is none.

    A port that was made anew lies in other words: a process and the writer keep the number of the port that they have
    mapped. Process ``p`` begins with port ``p``, its next one is ``p + count``.
    """

    def __init__(self, names: Names, rules: Rules, scene: Scene) -> None:
        self.rules = rules
        self.scene = scene
        self.count = count = len(scene.programs)
        self.readers = [number for number, program in enumerate(scene.programs) if "r" in program]
        boards, ports = scene.boards, count * (1 + scene.emptied)
        writers = ["nobody", *(f"writer {number + 1}" for number in range(scene.writers))]
        self.lock = names.word("writer.lock is held by", 0, writers)
        self.starting = names.word("a writer is being started:", 0, ("no", "yes"))
        self.board = names.word("the board's name leads to board")
        self.boards_made = names.word()
        self.state = [0, *names.words(boards, "board {}: STATE", 0, _STATES)]
        self.asleep = [0, *names.words(boards, "board {}: WRITER_ASLEEP")]
        self.end = [0, *names.words(boards, "board {}: the channel's end")]
        self.semaphore = names.word("the semaphore's name leads to semaphore")
        self.semaphores_made = names.word()
        self.tokens = [0, *names.words(boards, "tokens of semaphore {}")]
        self.lease = names.words(count, "lease {}", 0, ("is not there", "stands"))
        self.held = names.words(count, "lease {} is", 0, ("not held", "held"))
        self.port = [names.word("", number + 1) for number in range(count)]
        """Where the name of a process's port leads to, plus one; 0: nowhere."""
        self.detached = names.words(count, "port {}: DETACHED")
        self.head = names.words(ports, "port {}: HEAD")
        self.committed = names.words(ports, "port {}: COMMITTED")
        self.flag = names.words(ports, "port {}: ASLEEP")
        self.port_tokens = names.words(ports, "tokens of port {}")
        self.live = names.word("the journal", 0, ("is free", "is live"))
        self.frame = names.words(count, "the journal says ring {} is taken up to")
        self.log = names.words(count, "messages of process {} in the segments:")
        self.asks = [[at + 1 for at, what in enumerate(_records(program)) if what == "c"] for program in scene.programs]
        """Which records of each process ask for a checkpoint."""
        self.mapped: list[tuple[int, int]] = []
        """Of each process the words that say whether it lives, and which board it has found open."""
        self.new_writer: Callable[[World], bool] = lambda w: False
        """Begin a writer process; whether there was room for one in this model."""

    def post(self, w: World, tokens: int) -> None:
        """A token more."""
        if w[tokens] < self.scene.tokens:
            w[tokens] += 1

    def spawn(self, w: World) -> None:
        """`WriterSpawner.spawn`: "being started" is a lock that the child has from its birth until it has its own."""
        if not w[self.starting] and not w[self.lock] and self.new_writer(w):
            w[self.starting] = 1

    def all_messages(self, w: World | tuple[int, ...]) -> int:
        """How many stand in the segments."""
        return sum(w[word] for word in self.log)


def _records(program: str) -> str:
    return "".join(letter for letter in program if letter in "sc")


class Processor:
    """One process's stores on their way to the others, and its own view of them."""

    def __init__(self, names: Names, buffers: int, *, in_order: bool = True) -> None:
        self.in_order = in_order
        self.slots = [(names.word(), names.word()) for _ in range(buffers)]

    def store(self, w: World, word: int, value: int) -> bool:
        """Store; False if too many stores are under way (then it waits)."""
        if not self.slots:
            w[word] = value
            return True
        for where, what in self.slots:
            if not w[where]:
                w[where], w[what] = word, value
                return True
        return False

    def load(self, w: World, word: int) -> int:
        """What this process sees there: its own latest store."""
        for where, what in reversed(self.slots):
            if w[where] == word:
                return w[what]
        return w[word]

    def fence(self, w: World) -> None:
        """All its stores have arrived. A system call is a fence, too."""
        for where, what in self.slots:
            if w[where]:
                w[w[where]] = w[what]
                w[where] = w[what] = 0

    def arrive(self, w: World, number: int) -> bool:
        """One of its stores arrives; False if there is none, or another one has to come first."""
        slots = self.slots
        where, what = slots[number]
        word = w[where]
        if not word or (number and self.in_order) or any(w[before] == word for before, _ in slots[:number]):
            return False
        w[word] = w[what]
        for (to_where, to_what), (from_where, from_what) in zip(slots[number:], slots[number + 1 :], strict=False):
            w[to_where], w[to_what] = w[from_where], w[from_what]
        last_where, last_what = slots[-1]
        w[last_where] = w[last_what] = 0
        return True
