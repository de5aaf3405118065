"""Benchmarks of keyop beside the disk it writes to and the programs it is compared with. See docs/benchmarks.md."""
