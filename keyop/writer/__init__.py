"""The writer process: the one that appends, rolls, compacts, and writes the journal and the offset files.

``process`` is the main thread (signals and the tick), ``committer`` the commit loop, ``round`` what one group commit
takes from the rings, ``attached`` the ports, ``channels`` and ``cursors`` the tables, ``checkpoint`` what frees the
journal, ``retention`` what removes old segments. It imports little: it has to start fast and stay small.
"""
