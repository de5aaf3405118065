"""Following a channel and running a handler: ``subscription`` is one subscriber, ``delivery`` decides about attempts,
``exactly_once`` bundles what handlers publish with the moves of the offset, ``part_subscription`` shares the work of an
id with other processes, ``replays`` follows what was put back. ``pattern`` is one subscriber of many channels."""
