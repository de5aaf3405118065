"""What `keyop.config` is made of: the keys and what their values may be, the places they come from, and the faults."""
