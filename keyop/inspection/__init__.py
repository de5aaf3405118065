"""Looking at a data directory from outside, starting nothing: what the commands that only read call.

``survey`` lists channels, subscribers and the writer, ``verification`` looks for damage, ``following`` reads a channel
as it grows, ``at_rest`` brings a directory to rest.
"""
