"""``keyop up``: `roles` says which processes a configuration asks for, `supervisor` runs them with the parent of
`keyop.processes`, and the rest is what one can tell it, and what it tells others."""
