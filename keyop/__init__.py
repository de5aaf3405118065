"""keyop."""
