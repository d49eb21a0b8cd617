"""The page that Prometheus scrapes: `prometheus_client` writes it, but for gauges.

Of a thousand nodes there are eleven thousand gauges, and the library tests and escapes every label's name anew for each
of them, which is a third of what a scrape costs. Here the names are ours and plain, so only values are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_VALUE = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def page(registry: Collector) -> bytes:
    """Every family with its samples, in Prometheus' text format."""
    families = list(registry.collect())
    others = generate_latest(_Collected(one for one in families if one.type != "gauge"))
    return others + "".join(_gauge(one) for one in families if one.type == "gauge").encode()


def _gauge(family: Metric) -> str:
    told = f"# HELP {family.name} {family.documentation.translate(_HELP)}\n# TYPE {family.name} gauge\n"
    return told + "".join(map(_line, family.samples))


def _line(sample: Sample) -> str:
    labels = ",".join([f'{name}="{value.translate(_VALUE)}"' for name, value in sample.labels.items()])
    # What Python writes for what is no number, or without end, Prometheus reads as such too.
    return f"{sample.name}{{{labels}}} {sample.value!r}\n" if labels else f"{sample.name} {sample.value!r}\n"
