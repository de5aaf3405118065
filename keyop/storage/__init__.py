"""The files of a data directory: segments, offset files, and the commit journal.

Knows no JSON and no shared memory. ``directory`` says where things lie, ``disk`` is the one way to change them,
``segments`` reads, ``channel_log`` appends, ``frame``, ``journal_file`` and ``journal`` are the commit journal,
``recovery`` makes the files whole after a crash.
"""
