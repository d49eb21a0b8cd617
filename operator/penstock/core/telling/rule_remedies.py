"""Another rule or another node state: law, health, taints, affinity, host ports, GPU model, back-off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from penstock.api.names import EVIDENCE_TIME_LABEL
from penstock.core.model import Replica, Residency
from penstock.core.placement.affinity import CORDON, collides, repels
from penstock.core.placement.evidence import Evidence, judge
from penstock.core.placement.scheduling import Scheduling, Taint, Toleration
from penstock.core.placement.trial import MOST_TRIED, Case, fits_as, fits_on
from penstock.core.placement.verdicts import Filter
from penstock.core.residency import contradicts_itself, country_of, law
from penstock.core.residency.asking import to_allow
from penstock.core.residency.ceiling import SPEC
from penstock.core.residency.places import LABEL_NODES
from penstock.core.residency.proof import lately_proven, time_label


def settle_place(case: Case) -> str:
    """A node that would do once its place counts; of a cluster that is not labelled yet, what to run."""
    fleet = case.planner.fleet
    if not fleet.places_known:
        return f"run {LABEL_NODES}"
    for row in np.flatnonzero((case.table.first == Filter.LAWFUL_PLACE) & (fleet.columns.place_held == 1))[:MOST_TRIED]:
        view = case.view(int(row))
        if fits_on(case, replace(view, doubts=())):
            return next(doubt.remedy for doubt in view.doubts if doubt.holds)
    return ""


def prove_place(case: Case) -> str:
    """A node that would do if its place were proven now: nothing but the age of its evidence is in the way."""
    demanded, now_time = case.replica.residency, case.planner.ledger.now_time
    if demanded.evidence_max_age_seconds is None:
        return ""
    tried = 0
    for row in case.rows(Filter.LAWFUL_PLACE).tolist():
        view = case.view(row)
        if tried == MOST_TRIED or case.hurry():
            break
        if lately_proven(demanded, view.node, now_time) or law(demanded, view.node) is None:
            continue
        tried += 1
        labels = {**view.node.labels, EVIDENCE_TIME_LABEL: time_label(now_time)}
        if fits_on(case, replace(view, node=replace(view.node, labels=labels))):
            return f"prove the place of node {view.node.name} anew: {LABEL_NODES}"
    return ""


def widen_law(case: Case) -> str:
    """The first country whose nodes would do, were it allowed."""
    replica = case.replica
    places = case.planner.fleet.columns.places
    rows = case.rows(Filter.LAWFUL_PLACE)
    found = {places[row] for row in rows.tolist()}
    countries = sorted({country for country, part in found if country and not contradicts_itself(country, part)})
    for country in countries[: 2 * MOST_TRIED]:
        if fits_as(case, replace(replica, residency=_allowing(replica.residency, country)[0])):
            return _asks(replica, country)
    return ""


def _asks(replica: Replica, country: str) -> str:
    """What its author changes in the pool, and whom to ask where policies are in the way too."""
    demands = dict(replica.demands) or {SPEC: replica.residency}
    own = _allowing(demands.get(SPEC, Residency()), country)[1]
    closed = [source for source, residency in demands.items() if _allowing(residency, country)[1]]
    return " and ".join(filter(None, (own, to_allow(closed, country))))


def _allowing(residency: Residency, country: str) -> tuple[Residency, str]:
    """The same law with a country in it, and what its author changes for that; nothing where it is allowed."""
    told = []
    allowed = residency.allowed_countries
    if residency.bounded:
        if country not in (allowed or ()):
            told.append(f"add {country} to spec.residency.allowed")
        allowed = (allowed or frozenset()) | {country}
    denied = {code for code in residency.denied_subdivisions if country_of(code) == country}
    if lifted := sorted(denied | (residency.denied_countries & {country})):
        told.append(f"take {', '.join(lifted)} out of spec.residency.denied")
    wider = replace(
        residency,
        allowed_countries=allowed,
        denied_countries=residency.denied_countries - {country},
        denied_subdivisions=residency.denied_subdivisions - denied,
    )
    return wider, " and ".join(told)


def heal_node(case: Case) -> str:
    """A node that would do if it, or its agent, were well again. What a silent agent would say is not known."""
    now_at = case.planner.fleet.now_at
    for row in case.rows(Filter.HEALTHY).tolist()[: 2 * MOST_TRIED]:
        view = case.view(row)
        if view.telemetry is None:
            continue
        heard = replace(view.telemetry, heard_at=now_at)
        evidence = judge(view.telemetry, now_at)
        if judge(heard, now_at) is not Evidence.FRESH:
            continue
        if not fits_on(case, replace(view, node=replace(view.node, ready=True), telemetry=heard)):
            continue
        told = [] if view.node.ready else [f"bring node {view.node.name} back to Ready"]
        told += [f"bring the agent on node {view.node.name} back"] if evidence is not Evidence.FRESH else []
        return " and ".join(told)
    return ""


def lift_taint(case: Case) -> str:
    """A cordoned node that would do, else a taint that the template could tolerate."""
    tolerations = case.replica.scheduling.tolerations
    rows = case.rows(Filter.TAINTS).tolist()
    keeping: dict[tuple[Taint, ...], int] = {}
    for row in rows:
        taints = tuple(t for t in case.planner.fleet.rows[row].taints if repels((t,), tolerations))
        keeping.setdefault(taints, row)
    uncordonable = [row for row in rows if _only_cordoned(case, row, tolerations)]
    for row in uncordonable[:MOST_TRIED]:
        view = case.view(row)
        if fits_on(case, replace(view, node=replace(view.node, cordoned=False))):
            return f"uncordon node {view.node.name}"
    for taints in sorted(keeping, key=lambda taints: (len(taints), str(taints)))[:MOST_TRIED]:
        if CORDON not in taints and (told := _tolerate(case, taints)):
            return told
    return ""


def _only_cordoned(case: Case, row: int, tolerations: tuple[Toleration, ...]) -> bool:
    return case.view(row).node.cordoned and repels(case.view(row).node.taints, tolerations) is None


def _tolerate(case: Case, taints: tuple[Taint, ...]) -> str:
    more = tuple(Toleration(taint.key, "Equal", taint.value, taint.effect) for taint in taints)
    if not fits_as(case, _scheduled(case.replica, tolerations=case.replica.scheduling.tolerations + more)):
        return ""
    return "tolerate " + " and ".join(
        f"{taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}" for taint in taints
    )


def relax_affinity(case: Case) -> str:
    """The first constraint of the template without which the replica fits."""
    for told, scheduling in _relaxed(case.replica.scheduling):
        if fits_as(case, replace(case.replica, scheduling=scheduling)):
            return told
    return ""


def _relaxed(scheduling: Scheduling) -> Iterator[tuple[str, Scheduling]]:
    for key, value in sorted(scheduling.node_selector.items()):
        rest = {other: wanted for other, wanted in scheduling.node_selector.items() if other != key}
        yield f"take {key}={value} out of the template's nodeSelector", replace(scheduling, node_selector=rest)
    if scheduling.node_terms:
        yield "drop the template's required node affinity", replace(scheduling, node_terms=())
    for rule in scheduling.anti_affinity:
        rest_of = tuple(other for other in scheduling.anti_affinity if other != rule)
        yield f"drop the anti-affinity by {rule.topology_key}", replace(scheduling, anti_affinity=rest_of)
    for spread in scheduling.hard_spread:
        others = tuple(other for other in scheduling.hard_spread if other != spread)
        yield f"make the spread by {spread.topology_key} ScheduleAnyway", replace(scheduling, hard_spread=others)


def free_host_ports(case: Case) -> str:
    """A node that would do, were the pods gone that took the wanted ports."""
    wanted = case.replica.scheduling.host_ports
    for row in case.rows(Filter.HOST_PORTS).tolist()[:MOST_TRIED]:
        view = case.view(row)
        taken = {port for pod in view.pods for port in pod.host_ports if any(collides(one, port) for one in wanted)}
        pods = tuple(replace(pod, host_ports=tuple(set(pod.host_ports) - taken)) for pod in view.pods)
        if taken and fits_on(case, replace(view, pods=pods)):
            ports = ", ".join(f"{port.port}/{port.protocol}" for port in sorted(taken, key=lambda port: port.port))
            return f"free host port {ports} on node {view.node.name}"
    return ""


def widen_gpu_model(case: Case) -> str:
    """Another product, else less memory, that some node would then satisfy."""
    rules, columns = case.replica.rules, case.planner.fleet.columns
    rows = case.rows(Filter.GPU_MODEL)
    large = [row for row in rows.tolist() if columns.gpu_memory_bytes[row] >= rules.gpu_memory_bytes]
    others = {frozenset(columns.products[row] - rules.gpu_products) for row in large} if rules.gpu_products else set()
    named = [sorted(found) for found in others if found and "" not in found]
    for products in sorted(named, key=lambda one: (len(one), one)):
        wider = replace(rules, gpu_products=rules.gpu_products | set(products))
        if fits_as(case, replace(case.replica, rules=wider)):
            return f"add {', '.join(products)} to spec.gpu.products"
    for memory in sorted(set(columns.gpu_memory_bytes[rows].tolist()), reverse=True)[:MOST_TRIED]:
        gigabytes = memory // 10**9
        if gigabytes and fits_as(case, replace(case.replica, rules=replace(rules, gpu_memory_bytes=gigabytes * 10**9))):
            return f"lower spec.gpu.minMemory to {gigabytes}G"
    return ""


def await_calm(case: Case) -> str:
    """The calmest node that would do, were the ceiling on shared GPUs as high as they are busy."""
    rules, rows = case.replica.rules, case.planner.fleet.rows
    refused = [rows[row] for row in case.rows(Filter.SHARED_ACTIVITY).tolist()]
    for row in sorted(refused, key=lambda row: (row.busiest, row.view.node.name))[:MOST_TRIED]:
        if fits_as(case, replace(case.replica, rules=replace(rules, shared_activity_ceiling=row.busiest))):
            now = f"{row.busiest:.0%}" if row.busiest < 1 else "100% or not known"
            at_most = f"at most {rules.shared_activity_ceiling:.0%} busy"
            return f"wait until the shared GPUs of node {row.view.node.name} are {at_most} (now {now})"
    return ""


def end_back_off(case: Case) -> str:
    """A node that would do once its back-off is over."""
    for row in case.rows(Filter.BACK_OFF).tolist()[:1]:
        name = case.view(row).node.name
        if fits_as(case, replace(case.replica, avoid=case.replica.avoid - {name})):
            return f"nothing to do: the back-off of node {name} ends by itself"
    return ""


def _scheduled(replica: Replica, tolerations: tuple[Toleration, ...]) -> Replica:
    return replace(replica, scheduling=replace(replica.scheduling, tolerations=tolerations))
