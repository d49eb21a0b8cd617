"""The effective set, as a table: demands and exceptions, a node's labels, and whether a replica may run there.

The table is the specification. The core is held against it, and so is kube-scheduler with what the core compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.api.inferencepool import Residency as PoolResidency
from penstock.api.names import CLEARANCE_LABEL, COUNTRY_LABEL, EVIDENCE_LABEL, OPERATOR_LABEL, SUBDIVISION_LABEL
from penstock.api.residencyexception import Widened
from penstock.api.residencypolicy import ResidencyPolicySpec
from penstock.core.residency import reading
from penstock.core.residency.ceiling import Demand, Effective, Widening, effective
from penstock.core.residency.groups import Written, in_force

LEVELS = ("Public", "Internal", "Confidential", "Restricted")
GROUPS = in_force(
    {
        "eu": Written("2020-02-01", ("DE", "FR", "IE", "EL")),
        "eea": Written("2020-02-01", ("EU", "NO")),
        "hanse": Written("1356", ("DE-HB", "DE-HH", "SE")),
    },
    {},
).groups

_LABELS = {
    "country": COUNTRY_LABEL,
    "part": SUBDIVISION_LABEL,
    "operator": OPERATOR_LABEL,
    "clearance": CLEARANCE_LABEL,
    "evidence": EVIDENCE_LABEL,
}
Spec = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One law, one node, and the answer.

    `policies` are specs of ResidencyPolicies that all select the namespace, named `p0`, `p1` and so on; `pool` is the
    pool's own `residency`; `widen` is what an exception in force widens of `p0`.
    """

    lawful: bool
    node: str
    policies: tuple[Spec, ...] = ()
    pool: Spec = field(default_factory=dict)
    widen: Spec = field(default_factory=dict)
    beyond_affinity: bool = False
    """kube-scheduler would take the node: what is wrong with it no affinity can say."""

    @property
    def labels(self) -> dict[str, str]:
        return {_LABELS[axis]: value for axis, _, value in (word.partition("=") for word in self.node.split())}

    @property
    def law(self) -> Effective:
        """What the row's demands come to."""
        ceilings = [self._policy(number, spec) for number, spec in enumerate(self.policies)]
        own = reading.pool(PoolResidency.model_validate(self.pool), GROUPS)
        found = [*ceilings, own] if self.pool else ceilings
        assert [problem for one in found for problem in one.problems] == []
        return effective((one.found for one in found), self._widenings())

    def _policy(self, number: int, spec: Spec) -> reading.Reading[Demand]:
        whole = ResidencyPolicySpec.model_validate({"namespaceSelector": {}, **spec})
        return reading.policy(f"p{number}", "1", whole, GROUPS, LEVELS)

    def _widenings(self) -> tuple[Widening, ...]:
        if not self.widen:
            return ()
        widened = reading.exception("exception", ("p0",), Widened.model_validate(self.widen), GROUPS, LEVELS)
        assert widened.problems == ()
        return (widened.found,)


def _pool(lawful: bool, node: str, **pool: Any) -> Row:
    return Row(lawful, node, pool=pool)


def _under(lawful: bool, node: str, *policies: Spec, **more: Any) -> Row:
    return Row(lawful, node, policies, **more)


YES, NO = True, False

PLACES: Mapping[str, Row] = {
    "where nobody set a rule, a node of unknown place will do": _pool(YES, ""),
    "where nobody set a rule, a place that contradicts itself is nobody's concern": _pool(YES, "country=FR part=DE-HE"),
    "an allowed country is lawful": _pool(YES, "country=DE", allowed=["DE", "FR"]),
    "another country is not": _pool(NO, "country=US", allowed=["DE", "FR"]),
    "an unknown place is outside": _pool(NO, "", allowed=["DE", "FR"]),
    "a part of an allowed country is lawful: the narrower place satisfies the wider rule": _pool(
        YES, "country=DE part=DE-HE", allowed=["DE"]
    ),
    "a country never satisfies a rule that names a part of it": _pool(NO, "country=US", allowed=["US-VA"]),
    "the named part does": _pool(YES, "country=US part=US-VA", allowed=["US-VA"]),
    "another part of the same country does not": _pool(NO, "country=US part=US-TX", allowed=["US-VA"]),
    "a part without its country proves nothing": _pool(NO, "part=US-VA", allowed=["US-VA"]),
    "what lies in a named part is in it": _pool(YES, "country=FR part=FR-75C", allowed=["FR-IDF"]),
    "what a named part lies in is not in it": _pool(NO, "country=FR part=FR-IDF", allowed=["FR-75C"]),
    "a place that contradicts itself is outside": Row(
        NO, "country=FR part=DE-HE", pool={"allowed": ["FR"]}, beyond_affinity=True
    ),
    "deny wins over allow": _pool(NO, "country=FR", allowed=["DE", "FR"], denied=["FR"]),
    "what is not denied stays allowed": _pool(YES, "country=DE", allowed=["DE", "FR"], denied=["FR"]),
    "a pool that only denies takes every other country": _pool(YES, "country=DE", denied=["US"]),
    "a pool that only denies takes no unknown place": _pool(NO, "", denied=["US"]),
    "a pool that only denies does not take what it denies": _pool(NO, "country=US", denied=["US"]),
    "a part of a denied country is denied": _pool(NO, "country=US part=US-VA", denied=["US"]),
    "a denied part is outside": _pool(NO, "country=US part=US-VA", allowed=["US"], denied=["US-VA"]),
    "the rest of its country is not": _pool(YES, "country=US part=US-TX", allowed=["US"], denied=["US-VA"]),
    "where a part is denied, not to know the part is to be outside": _pool(
        NO, "country=US", allowed=["US"], denied=["US-VA"]
    ),
    "where no part is denied, nobody asks for the part": _pool(
        YES, "country=DE", allowed=["US", "DE"], denied=["US-VA"]
    ),
    "only a denied part: other countries are lawful without theirs": _pool(YES, "country=DE", denied=["US-VA"]),
    "only a denied part: the country without its part is not": _pool(NO, "country=US", denied=["US-VA"]),
    "only a denied part: its neighbour is": _pool(YES, "country=US part=US-TX", denied=["US-VA"]),
    "what lies in a denied part is denied": _pool(NO, "country=FR part=FR-75C", allowed=["FR"], denied=["FR-IDF"]),
    "who knows no more than what the denied part lies in is outside": _pool(
        NO, "country=FR part=FR-IDF", allowed=["FR"], denied=["FR-75C"]
    ),
    "a department beside the denied one is lawful": _pool(
        YES, "country=FR part=FR-92", allowed=["FR"], denied=["FR-75C"]
    ),
    "allowed parts of two countries are lawful each in its own": _pool(
        YES, "country=US part=US-TX", allowed=["DE-HE", "US-TX"]
    ),
    "a part of one allowed beside the whole of another": _pool(
        YES, "country=US part=US-TX", allowed=["DE", "US-TX"], denied=["DE-HE"]
    ),
    "the common name of a country means the country": _pool(YES, "country=GB", allowed=["UK"]),
    "a country by its name is no code": _pool(NO, "country=Germany", allowed=["DE"]),
    "a country in small letters is no code": _pool(NO, "country=de", allowed=["DE"]),
}

GROUP_ROWS: Mapping[str, Row] = {
    "a member of an allowed group is lawful": _pool(YES, "country=FR", allowed=["EU"]),
    "a group is cited in any case": _pool(YES, "country=FR", allowed=["Eea"]),
    "a member of a group in a group is lawful": _pool(YES, "country=IE", allowed=["EEA"]),
    "a member by its common name is lawful": _pool(YES, "country=GR", allowed=["EU"]),
    "who is in the wider group only is not in the narrower": _pool(NO, "country=NO", allowed=["EU"]),
    "a member of a denied group is not": _pool(NO, "country=FR", allowed=["FR", "US"], denied=["EU"]),
    "a group less one member": _pool(NO, "country=IE", allowed=["EEA"], denied=["IE"]),
    "a group less a group": _pool(YES, "country=NO", allowed=["EEA"], denied=["EU"]),
    "a part of a country in a group is lawful": _pool(YES, "country=DE part=DE-HH", allowed=["Hanse"]),
    "its country is not": _pool(NO, "country=DE", allowed=["Hanse"]),
    "a node that says the name of a group says nothing": _pool(NO, "country=EU", allowed=["EU"]),
}

_EU: Spec = {"allowed": ["EU"]}
_NO_IRELAND: Spec = {"denied": ["IE"]}

CEILINGS: Mapping[str, Row] = {
    "a policy alone is the law": _under(YES, "country=DE", _EU),
    "a policy alone keeps the rest out": _under(NO, "country=US", _EU),
    "a pool narrows its ceiling": _under(NO, "country=FR", _EU, pool={"allowed": ["DE"]}),
    "a pool never widens it": _under(NO, "country=US", _EU, pool={"allowed": ["DE", "US"]}),
    "what both allow is lawful": _under(YES, "country=DE", _EU, pool={"allowed": ["DE", "US"]}),
    "a pool names a part of what its ceiling allows": _under(
        YES, "country=DE part=DE-HE", _EU, pool={"allowed": ["DE-HE"]}
    ),
    "a pool that allows a country under a ceiling of one part has the part": _under(
        YES, "country=US part=US-VA", {"allowed": ["US-VA"]}, pool={"allowed": ["US"]}
    ),
    "and nothing but that part": _under(NO, "country=US part=US-TX", {"allowed": ["US-VA"]}, pool={"allowed": ["US"]}),
    "what one of two policies denies is outside": _under(NO, "country=IE", _EU, _NO_IRELAND),
    "what neither denies and both allow is lawful": _under(YES, "country=DE", _EU, _NO_IRELAND),
    "a pool does not allow again what a policy denies": _under(
        NO, "country=IE", _NO_IRELAND, pool={"allowed": ["IE", "DE"]}
    ),
    "two policies allow what is in both": _under(YES, "country=NO", {"allowed": ["EEA"]}, {"allowed": ["NO", "US"]}),
    "two policies do not allow what is in one": _under(
        NO, "country=US", {"allowed": ["EEA"]}, {"allowed": ["NO", "US"]}
    ),
    "two policies that leave no place allow none": _under(NO, "country=DE", {"allowed": ["DE"]}, {"allowed": ["FR"]}),
    "three that agree in pairs and not together allow none": _under(
        NO, "country=DE", {"allowed": ["DE", "FR"]}, {"allowed": ["FR", "IE"]}, {"allowed": ["DE", "IE"]}
    ),
    "a policy in mode Audit narrows nothing": _under(YES, "country=US", {"allowed": ["DE"], "mode": "Audit"}),
    "a policy in mode Audit takes nothing off another": _under(
        YES, "country=IE", _EU, {"denied": ["IE"], "mode": "Audit"}
    ),
    "denied parts of two sources add up": _under(
        NO, "country=US part=US-TX", {"denied": ["US-VA"]}, pool={"allowed": ["US"], "denied": ["US-TX"]}
    ),
    "parts of several countries under a ceiling of whole ones and parts": _under(
        YES, "country=US part=US-TX", {"allowed": ["DE", "US-TX"]}, pool={"allowed": ["DE-HE", "US-TX"]}
    ),
}

AXES: Mapping[str, Row] = {
    "a nationality of control that is allowed": _pool(YES, "country=DE operator=FR", operator={"allowed": ["EU"]}),
    "one that is not allowed": _pool(NO, "country=DE operator=US", operator={"allowed": ["EU"]}),
    "an unknown one": _pool(NO, "country=DE", operator={"allowed": ["EU"]}),
    "one that is denied": _pool(NO, "country=DE operator=US", operator={"denied": ["US"]}),
    "any other, where one is denied": _pool(YES, "country=DE operator=CH", operator={"denied": ["US"]}),
    "an unknown one, where one is denied": _pool(NO, "country=DE", operator={"denied": ["US"]}),
    "one that is allowed and denied": _pool(
        NO, "country=DE operator=IE", operator={"allowed": ["EU"], "denied": ["IE"]}
    ),
    "a rule of control asks for a known place too": _pool(NO, "operator=DE", operator={"allowed": ["EU"]}),
    "what one policy denies of control another does not allow": _under(
        NO,
        "country=DE operator=US",
        {"operator": {"denied": ["US"]}},
        {"operator": {"allowed": ["DE", "US"]}},
    ),
    "a place in the EU under foreign control": _under(
        NO, "country=DE operator=US", {"allowed": ["EU"], "operator": {"allowed": ["EU"]}}
    ),
    "foreign ground under control of the EU": _under(
        NO, "country=US operator=DE", {"allowed": ["EU"], "operator": {"allowed": ["EU"]}}
    ),
    "the least clearance suffices": _under(YES, "country=DE clearance=Confidential", {"clearance": "Confidential"}),
    "a higher one does": _under(YES, "country=DE clearance=Restricted", {"clearance": "Confidential"}),
    "a lower one does not": _under(NO, "country=DE clearance=Internal", {"clearance": "Confidential"}),
    "no clearance is none": _under(NO, "country=DE", {"clearance": "Public"}),
    "a clearance that nobody knows is none": _under(NO, "country=DE clearance=Cosmic", {"clearance": "Public"}),
    "of two least clearances the higher counts": _under(
        NO, "country=DE clearance=Confidential", {"clearance": "Confidential"}, {"clearance": "Restricted"}
    ),
    "the least evidence suffices": _under(YES, "country=DE evidence=TPM", {"evidence": {"minimum": "TPM"}}),
    "stronger evidence does": _under(YES, "country=DE evidence=ConfidentialGPU", {"evidence": {"minimum": "TPM"}}),
    "weaker evidence does not": _under(NO, "country=DE evidence=CloudIdentity", {"evidence": {"minimum": "TPM"}}),
    "no evidence is none": _under(NO, "country=DE", {"evidence": {"minimum": "Declared"}}),
    "every axis at once": _under(
        YES,
        "country=US part=US-TX operator=DE clearance=Restricted evidence=TPM",
        {
            "denied": ["US-VA"],
            "operator": {"allowed": ["EU"]},
            "clearance": "Internal",
            "evidence": {"minimum": "CloudIdentity"},
        },
    ),
}

EXCEPTIONS: Mapping[str, Row] = {
    "an exception allows a place beside": _under(YES, "country=CH", _EU, widen={"allowed": ["CH"]}),
    "and nothing else": _under(NO, "country=US", _EU, widen={"allowed": ["CH"]}),
    "and keeps what was allowed": _under(YES, "country=DE", _EU, widen={"allowed": ["CH"]}),
    "an exception allows what its policy denies": _under(YES, "country=IE", _NO_IRELAND, widen={"allowed": ["IE"]}),
    "an exception widens the policy that it names and no other": _under(
        NO, "country=CH", _EU, _EU, widen={"allowed": ["CH"]}
    ),
    "an exception does not widen what the pool itself says": _under(
        NO, "country=CH", _EU, pool={"allowed": ["DE"]}, widen={"allowed": ["CH"]}
    ),
    "an exception allows a denied part": _under(
        YES, "country=US part=US-VA", {"denied": ["US-VA"]}, widen={"allowed": ["US-VA"]}
    ),
    "an exception allows a part of a denied country": _under(
        YES, "country=US part=US-TX", {"denied": ["US"]}, widen={"allowed": ["US-TX"]}
    ),
    "and no other part of it": _under(NO, "country=US part=US-VA", {"denied": ["US"]}, widen={"allowed": ["US-TX"]}),
    "nor the country without its part": _under(NO, "country=US", {"denied": ["US"]}, widen={"allowed": ["US-TX"]}),
    "and leaves every other country as it was": _under(
        YES, "country=JP", {"denied": ["US"]}, widen={"allowed": ["US-TX"]}
    ),
    "an exception allows a nationality beside": _under(
        YES, "country=DE operator=CH", {"operator": {"allowed": ["EU"]}}, widen={"operator": ["CH"]}
    ),
    "an exception allows a denied nationality": _under(
        YES, "country=DE operator=US", {"operator": {"denied": ["US"]}}, widen={"operator": ["US"]}
    ),
    "and no unknown one": _under(NO, "country=DE", {"operator": {"denied": ["US"]}}, widen={"operator": ["US"]}),
    "an exception lowers the clearance": _under(
        YES, "country=DE clearance=Internal", {"clearance": "Restricted"}, widen={"clearance": "Internal"}
    ),
    "an exception raises no clearance": _under(
        YES, "country=DE clearance=Internal", {"clearance": "Internal"}, widen={"clearance": "Restricted"}
    ),
    "an exception takes weaker evidence": _under(
        YES, "country=DE evidence=Declared", {"evidence": {"minimum": "TPM"}}, widen={"evidence": "Declared"}
    ),
    "an exception of one axis leaves the others": _under(
        NO, "country=CH", {**_EU, "clearance": "Internal"}, widen={"allowed": ["CH"]}
    ),
}

ROWS: Mapping[str, Row] = {**PLACES, **GROUP_ROWS, **CEILINGS, **AXES, **EXCEPTIONS}
