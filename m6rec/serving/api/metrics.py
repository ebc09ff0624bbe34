"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Measurements:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("m6rec_requests", "Answers.", ("route", "status"), registry=self.registry)
        self.request_s = Histogram(
            "m6rec_request_seconds", "Time to the answer.", ("route",), buckets=SECONDS, registry=self.registry
        )
        self.stage_s = Histogram(
            "m6rec_stage_seconds", "Time of a stage.", ("stage",), buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "m6rec_batch_size", "Requests done together.", ("kind",), buckets=(1, 2, 4, 8, 16), registry=self.registry
        )
        self.depth = Gauge("m6rec_queue_depth", "Requests that wait.", ("queue",), registry=self.registry)

    def measure_batch(self, kind: str, size: int) -> None:
        """Takes in a batch."""
        self.batch.labels(kind).observe(size)

    def measure_cache(self, statistics: Callable[[], CacheStatistics]) -> None:
        """Reports a cache's statistics whenever Prometheus asks."""
        self.registry.register(_CacheCollector(statistics))


class _CacheCollector(Collector):
    def __init__(self, statistics: Callable[[], CacheStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        yield CounterMetricFamily("m6rec_cache_hits", "Texts whose states were kept.", now.hits)
        yield CounterMetricFamily("m6rec_cache_misses", "Texts whose states were computed.", now.misses)
        yield CounterMetricFamily("m6rec_cache_store_failures", "Reads and writes that failed.", now.store_failures)
        yield GaugeMetricFamily("m6rec_cache_entries", "Texts in memory.", now.entries)
        yield GaugeMetricFamily("m6rec_cache_bytes", "What they take.", now.bytes)
