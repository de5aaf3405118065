"""The numbers of a data directory for Prometheus. Attaches, starts and changes nothing."""
