"""The text that Prometheus reads, in its format or in that of OpenMetrics: `prometheus_client` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from keyop.ipc.histogram import BOUNDS_S, Distribution
from keyop.metrics.catalogue import CATALOGUE, Described
from keyop.metrics.observer import Observation, Observer
from keyop.metrics.totals import Count, Key

# Of two neighbours the upper one: a series for each bucket would be most of what is scraped.
_TOLD = [(repr(bound_s), bucket) for bucket, bound_s in enumerate(BOUNDS_S) if bucket % 2]


def expose(observer: Observer, accept: str = "") -> tuple[bytes, str]:
    """Look, and tell it in the format that an ``Accept`` header asks for: the text and its content type."""
    encode, content_type = choose_encoder(accept)
    text = encode(_Looked(observer.look()))
    return (text if isinstance(text, bytes) else str(text).encode()), content_type


class _Looked(Collector):
    """In the place of a registry: the families of one look."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation

    def collect(self) -> Iterator[Metric]:
        values: dict[str, list[tuple[Key, Count | float]]] = {}
        for found in (self._observation.gauges, self._observation.counts):
            for key, value in found.items():
                values.setdefault(key.name, []).append((key, value))
        for metric in CATALOGUE:
            if metric.name in values:
                yield _family(metric, sorted(values[metric.name], key=lambda one: one[0].labels))


def _family(metric: Described, values: Iterable[tuple[Key, Count | float]]) -> Metric:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for key, times in values:
            if isinstance(times, Distribution) and times.total:
                histogram.add_metric(key.labels, _buckets(times), times.sum_s)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for key, value in values:
        if not isinstance(value, Distribution):
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
