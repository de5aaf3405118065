"""Single bits that turn over, in every file of a data directory and in shared memory."""
