"""``keyop up`` and what belongs to it: how soon it is there, what it takes, and how soon it has mended something."""
