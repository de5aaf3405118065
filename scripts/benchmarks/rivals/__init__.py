"""The programs that keyop is compared with. Each is skipped, with the reason, where it is not installed."""

from __future__ import annotations

from benchmarks.contender import Contender
from benchmarks.rivals.beanstalkd import Beanstalkd
from benchmarks.rivals.nats import JetStream
from benchmarks.rivals.redis import Redis
from benchmarks.rivals.rocksdb import RocksDB
from benchmarks.rivals.sqlite import SQLite


def rivals() -> list[Contender]:
    """One of each."""
    return [RocksDB(), SQLite(), Beanstalkd(), Redis(), JetStream()]
