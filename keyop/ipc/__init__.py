"""Shared memory, semaphores and leases: how the processes of one data directory meet.

``layout`` says what lies where, ``names`` how objects are called, ``memory`` makes and opens them; ``board``, ``port``,
``slot`` and ``ring`` are what lies in them; ``semaphore`` wakes sleepers, ``gate`` shares one semaphore among threads,
``lease`` tells who is alive.
"""
