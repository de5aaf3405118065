"""Following a channel and running a handler: ``subscription`` is one subscriber, ``tail`` reads its channel,
``delivery`` decides about attempts, ``exactly_once`` bundles what handlers publish with the moves of the offset."""
