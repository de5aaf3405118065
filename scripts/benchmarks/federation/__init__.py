"""Benchmarks between hosts: hub and clients on the loopback, with TLS, beside a bare echo and the disk.

``site`` is the hosts under test, ``latency``, ``throughput`` and ``crowd`` what is measured on them, ``echo`` and
``disk`` the floors.
"""
