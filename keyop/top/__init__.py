"""The terminal view: ``keyop top``."""
