"""The table of metrics in docs/metrics.md, from the same declarations that the process registers."""

from __future__ import annotations

from penstock.control.power.power_metrics import described
from penstock.metrics import Described, Metrics

PREAMBLE = """<!-- Generated from metrics.py and control/power/power_metrics.py by hack/generate.py. -->
# Metrics

`/metrics` of the operator, in the Prometheus text format. Watts, joules and seconds throughout; no label ever names a
pod. The series of a domain, a node or a pool end with it. Watts are told by the leader alone: a standby, and a leader
before its first turn, has none of those series. `process_*` are those of the Prometheus client library.
"""
HEADING = "\n## {}\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n"


def metrics_page() -> str:
    """The whole page."""
    sections = {f"Per {kind}": found for kind, found in described().items()}
    sections["Of the process and its decisions"] = Metrics().described
    return PREAMBLE + "".join(HEADING.format(title) + "".join(map(_row, found)) for title, found in sections.items())


def _row(metric: Described) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.told} |\n"
