"""Looking on while it runs, for `keyop top` and `keyop dashboard`. Attaches, starts and changes nothing."""
