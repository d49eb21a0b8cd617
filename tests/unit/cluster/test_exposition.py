"""The page says what the library's own would say."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock.cluster.exposition import page

Told = dict[str, tuple[str, str, dict[tuple[str, frozenset[tuple[str, str]]], float]]]


def told(text: bytes) -> Told:
    return {
        family.name: (
            family.type,
            family.documentation,
            {(sample.name, frozenset(sample.labels.items())): sample.value for sample in family.samples},
        )
        for family in text_string_to_metric_families(text.decode())
    }


def filled() -> CollectorRegistry:
    """One family of each type that we have, with values and labels that are hard to write."""
    registry = CollectorRegistry()
    Counter("asked", "How often.", ("verb",), registry=registry).labels("GET").inc(3)
    Histogram("took_seconds", "How long.", registry=registry).observe(0.3)
    Gauge("plain", "Without a label, and a \\ and\na line of help.", registry=registry).set(1_234_567.5)
    watts = Gauge("watts", "Watts.", ("node", "limit"), registry=registry)
    for name, value in hard():
        watts.labels(name, "enforced").set(value)
    return registry


def hard() -> Iterable[tuple[str, float]]:
    return (
        ('a "quoted" \\ name\nin two lines', 0.1 + 0.2),
        ("größer", -1e-9),
        ("", 1e21),
        ("no end", math.inf),
        ("none below", -math.inf),
    )


def test_every_sample_of_every_type_is_what_the_library_writes() -> None:
    registry = filled()
    ours, theirs = told(page(registry)), told(generate_latest(registry))
    assert ours == theirs
    assert len(ours["watts"][2]) == len(tuple(hard()))


def test_a_figure_that_is_none_is_written_as_none() -> None:
    registry = CollectorRegistry()
    Gauge("share", "Of nothing.", registry=registry).set(math.nan)
    assert math.isnan(told(page(registry))["share"][2]["share", frozenset()])
