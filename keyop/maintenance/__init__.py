"""What changes a data directory by command: dead letters put back, offsets moved, channels deleted, files repaired.

All but the repair go through the writer, and what is to happen together is one transaction: a command that is killed
has done it or has not, and may be given again.
"""
