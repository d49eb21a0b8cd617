"""docs/bypasses.md: who tries what against the law and what comes of it, from the rows that the tests try."""

from __future__ import annotations

from collections.abc import Iterable

from bypasses import REFUSED, Row
from bypasses_bank import ATTACKERS, OPERATOR, Attacker
from bypasses_detected import BESIDE, DETECTED, Detected

PREAMBLE = """<!-- Generated from tests/bypasses*.py by hack/generate.py: the rows are what the tests try. -->
# Ways around the law

Every way around a ResidencyPolicy that we could find, tried on a real API server by somebody with a client certificate
and just the rights named below. Nothing of Penstock runs where one is refused: the API server does it alone. The last
column is how its words begin.
"""
HEADING = "\n## {}\n\n| Who | Tries | Outcome | By | In the words of the API server |\n|---|---|---|---|---|\n"
DETECTED_HEADING = """
## What no request shows, or came before the law

The operator finds it, and empties the place within 5 s. What is in no pool of ours nobody replaces, so it is ended
within its grace, whatever `onViolation` says; a policy that would end it from its first moment waits for `confirm` like
any edit. A static pod ends by no request: `status.violations` and the condition `ResidencyCompliant` of its policy name
it until it is gone, with an Event. One that its kubelet could not even show is found where the agents read the
kubelet's PodResources (`agent.podResourcesSocket`), a quarter of a minute after it started; elsewhere its GPU says
`BusyUnallocatedGPU` and the node offers fewer.

| Who | Does | Outcome | Told as |
|---|---|---|---|
"""
UNSEEN = """
## What nobody sees

- `NVIDIA_VISIBLE_DEVICES` out of an image or an `envFrom` is in no pod that the API server is shown. The container
  toolkit closes that with `accept-nvidia-visible-devices-envvar-when-unprivileged = false`.
- A privileged container sees every device of its node, and a mount of the host's `/dev` does. Pod Security `baseline`
  refuses both.
- Exempt namespaces (`kube-system`, the release's own, the chart's `residency.exemptNamespaces`) are under no law:
  whoever may create pods there may put any GPU to use. A pool there takes no place while an enforced policy selects it.
- A namespace is under the law once the operator has marked it: a second after a policy selects it, and not while no
  operator runs. What ran there before is found afterwards. Whoever may create namespaces may create one that no policy
  selects: let `namespaceSelector` name what a team cannot leave out, or select all (`{}`) and exempt.
- Whoever may write admission policies or their bindings can take the law away, and so can whoever has the node itself.
  What ran meanwhile is found afterwards.
"""
RIGHTS = """
## Who they are

In the namespace under the law, or where it says so everywhere. The operator's own account tries as well, with the
rights that the chart gives it. It writes the law onto namespaces, since that is its work: guard its token.

| Who | May |
|---|---|
"""


def bypasses_page() -> str:
    """The whole page."""
    tables = (HEADING.format(title) + "".join(map(_refused, rows)) for title, rows in REFUSED.items())
    detected = DETECTED_HEADING + "".join(map(_detected, DETECTED))
    return PREAMBLE + "".join(tables) + detected + UNSEEN + RIGHTS + _rights()


def _refused(row: Row) -> str:
    by = f"`{row.by}`" if row.by.startswith("penstock-") else row.by
    return f"| {row.who} | {row.tries} | refused | {by} | {_cell(row.says)} |\n"


def _detected(row: Detected) -> str:
    return f"| {row.who} | {row.tries} | {row.end} | {_cell(row.says)} |\n"


def _rights() -> str:
    people = {name: _may(one) for name, one in {**ATTACKERS, **BESIDE}.items()}
    people[OPERATOR] = "what the chart's ClusterRole lists"
    return "".join(f"| {name} | {_cell(may)} |\n" for name, may in people.items())


def _may(one: Attacker) -> str:
    found = [f"{right.verbs.replace(' ', ', ')} {right.resources.replace(' ', ', ')}" for right in one.rights]
    if one.role:
        found.append(f"what the ClusterRole {one.role} lists")
    if not found:
        return f"what Kubernetes lets `{one.user}` do"
    return _listed(found) + (" everywhere" if one.everywhere else "") + _member(one.groups)


def _listed(found: Iterable[str]) -> str:
    return "; ".join(found)


def _member(groups: Iterable[str]) -> str:
    return "".join(f", as a member of {group}" for group in groups)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
