"""The process that keeps others running: ``keyop up``, and ``keyop worker`` with several processes.

`parent` decides, `service` is one role that is kept running, `child` one process of it, and `loop` brings everything
that happens (signals, lines, time) to the one thread that there is.
"""
