"""The text that Prometheus reads, in its format or in that of OpenMetrics: `prometheus_client` writes it.

That takes it longer than the look: most lines are those of the look before, and are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from keyop.ipc.histogram import BOUNDS_S, Distribution
from keyop.metrics.catalogue import CATALOGUE, Described
from keyop.metrics.observer import Observation, Observer
from keyop.metrics.totals import Count, Key

# Of two neighbours the upper one: a series for each bucket would be most of what is scraped.
_TOLD = [(repr(bound_s), bucket) for bucket, bound_s in enumerate(BOUNDS_S) if bucket % 2]
_END = "# EOF"
_MOST_FORMATS = 2

Value = Count | float


class Exposition:
    """Of one data directory, look after look. For one thread at a time."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._formats: dict[str, _Format] = {}

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Look, and tell it in the format that an ``Accept`` header asks for: the text and its content type."""
        encode, content_type = choose_encoder(accept)
        format = self._formats.get(content_type)
        if format is None:
            if len(self._formats) >= _MOST_FORMATS:
                self._formats.clear()
            format = self._formats[content_type] = _Format(encode)
        return format.text(self._observer.look()).encode(), content_type


class _Format:
    """One of the formats, with the lines of the last look."""

    def __init__(self, encode: Callable[[Collector], bytes]) -> None:
        self._encode = encode
        self._headings: dict[str, str] = {}
        self._lines: dict[Key, tuple[Value, str]] = {}
        self._ending = self._encoded([])[-1]

    def text(self, observation: Observation) -> str:
        """All families."""
        values: dict[str, list[tuple[Key, Value]]] = {}
        for found in (observation.gauges, observation.counts):
            for key, value in found.items():
                if not isinstance(value, Distribution) or value.total:
                    values.setdefault(key.name, []).append((key, value))
        lines: dict[Key, tuple[Value, str]] = {}
        parts = []
        for metric in CATALOGUE:
            rows = sorted(values.get(metric.name, ()), key=lambda row: row[0].labels)
            if rows:
                self._write([row for row in rows if self._lines.get(row[0], (None, ""))[0] != row[1]], metric)
                parts.append(self._headings[metric.name])
                for key, _ in rows:
                    lines[key] = self._lines[key]
                    parts.append(lines[key][1])
        self._lines = lines  # those of what is gone are forgotten
        return "".join(parts) + self._ending

    def _write(self, rows: list[tuple[Key, Value]], metric: Described) -> None:
        """Have the lines of these rows written, and those above them."""
        if not rows:
            return
        written = self._encoded([_family(metric, rows)])[:-1]
        headings = [line for line in written if line.startswith("#")]
        self._headings[metric.name] = "".join(headings)
        del written[: len(headings)]
        each = len(written) // len(rows)
        for number, (key, value) in enumerate(rows):
            self._lines[key] = value, "".join(written[number * each : (number + 1) * each])

    def _encoded(self, families: list[Metric]) -> list[str]:
        """Lines with their newlines; last what is at the end of all, which may be nothing."""
        lines = [f"{line}\n" for line in self._encode(_Families(families)).decode().split("\n")[:-1]]
        return lines if lines and lines[-1].startswith(_END) else [*lines, ""]


class _Families(Collector):
    """In the place of a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _family(metric: Described, rows: list[tuple[Key, Value]]) -> Metric:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for key, times in rows:
            assert isinstance(times, Distribution)
            histogram.add_metric(key.labels, _buckets(times), times.sum_s)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for key, value in rows:
        assert not isinstance(value, Distribution)
        family.add_metric(key.labels, float(value))
    return family


def _buckets(times: Distribution) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them."""
    below: list[int] = []
    total = 0
    for count in times.counts:
        total += count
        below.append(total)
    return [*((bound, below[bucket]) for bound, bucket in _TOLD), ("+Inf", total)]
