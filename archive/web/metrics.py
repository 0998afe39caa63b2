"""`/metrics` in Prometheus' text format; the same from whichever worker answers.

What lies in the journal and the index is read at the moment of the scrape. What a worker counts carries its number as the label
`worker`, and every answer holds all of them.
"""

import logging
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from archive.errors import ArchiveError
from archive.web.counters import OUTCOMES, SECONDS_BOUNDS, TRANSACTIONS, Counters
from archive.web.services import SERVICES, Figure

PREFIX = "dicom_archive_"

log = logging.getLogger(__name__)


async def metrics(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`."""
    services = request.app[SERVICES]

    def collect() -> bytes:
        try:
            figures = services.figures()
            readable = 1.0
        except (ArchiveError, OSError) as error:
            log.error("figures of the node cannot be read: %s", error)
            figures, readable = [], 0.0
        figures.append(Figure("figures_readable", "1 where journal and index could be read for this scrape.", readable, {}))
        registry = CollectorRegistry()
        registry.register(WorkerCollector(services.counters))
        registry.register(FigureCollector(figures))
        return generate_latest(registry)

    body = await services.threads.search(collect)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class FigureCollector(Collector):
    """Figures of the node as gauges; those whose name ends in `_total` as counters."""

    def __init__(self, figures: list[Figure]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for figure in self._figures:
            counts = figure.name.endswith("_total")
            family = families.get(figure.name)
            if family is None:
                kind = CounterMetricFamily if counts else GaugeMetricFamily
                family = families[figure.name] = kind(PREFIX + figure.name, figure.help)
            family.add_sample(PREFIX + figure.name, figure.labels, figure.value)
        yield from families.values()


class WorkerCollector(Collector):
    """What the web workers count."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        found = self._counters.read_all()
        requests = CounterMetricFamily(f"{PREFIX}http_requests", "Requests answered.", labels=("worker", "transaction", "outcome"))
        seconds = HistogramMetricFamily(
            f"{PREFIX}http_request_seconds", "Time until the last byte was written.", labels=("worker", "transaction")
        )
        plain: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            "answers_cut_total": CounterMetricFamily(f"{PREFIX}http_answers_cut", "Answers cut off half-way.", labels=("worker",)),
            "requests_refused_total": CounterMetricFamily(
                f"{PREFIX}http_requests_refused", "Requests over web.requests_max.", labels=("worker",)
            ),
            "connections_refused_total": CounterMetricFamily(
                f"{PREFIX}http_connections_refused", "Connections over web.connections_max.", labels=("worker",)
            ),
            "connections_total": CounterMetricFamily(f"{PREFIX}http_connections", "Connections accepted.", labels=("worker",)),
            "requests_open": GaugeMetricFamily(f"{PREFIX}http_requests_open", "Requests being answered.", labels=("worker",)),
            "connections_open": GaugeMetricFamily(f"{PREFIX}http_connections_open", "Connections open.", labels=("worker",)),
        }
        for worker, values in found.items():
            for transaction in TRANSACTIONS:
                counts = {outcome: values[f"requests_total/{transaction}/{outcome}"] for outcome in OUTCOMES}
                total = sum(counts.values())
                if not total:
                    continue
                for outcome, count in counts.items():
                    requests.add_metric((worker, transaction, outcome), count)
                running, buckets = 0.0, []
                for bound in SECONDS_BOUNDS:
                    running += values[f"seconds_within/{transaction}/{bound}"]
                    buckets.append((str(bound), running))
                buckets.append(("+Inf", total))
                seconds.add_metric((worker, transaction), buckets, sum_value=values[f"seconds_sum/{transaction}"])
            for name, family in plain.items():
                family.add_metric((worker,), values[name])
        yield requests
        yield seconds
        yield from plain.values()
