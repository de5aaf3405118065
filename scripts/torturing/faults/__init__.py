"""Disks that fail, are full, or are slow: a file system over FUSE whose operations fail on command."""
