"""Power cuts: a disk that remembers every write and every flush, and what may be left of it at any moment."""
