"""From a payload to a transaction in the ring, alone or together with others.

``publisher`` makes and commits transactions, ``outbox`` collects what belongs to one, ``handling`` is the message whose
handler runs, ``publish_context`` what a block of code gives to all it publishes.
"""
