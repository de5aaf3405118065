"""``./scripts/demo``: one process publishes what this host's sensors say, two others handle it, one of them badly.

``__main__`` starts them and shows what happens, ``publish`` and ``work`` are what they run, ``sensors`` reads /proc and
/sys, ``crew`` is a child process and its lines, ``account`` compares what was published with what became of it.
"""

CHANNEL = "readings"
READING_TYPE = "demo.reading.v1"
STEADY, SHAKY = "display", "siren"
