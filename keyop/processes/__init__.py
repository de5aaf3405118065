"""Processes that a process of ours keeps running: those of ``keyop up``, and of ``keyop worker`` with several.

`parent` decides, `service` is one role that is kept running, `child` one process of it, and `loop` brings everything
that happens (signals, lines, time) to the one thread that there is.
"""
