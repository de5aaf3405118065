"""``keyop service``: a unit with which systemd runs ``keyop up``."""
