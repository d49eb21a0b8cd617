"""What an answer to an attempt proves: a refusal counts only in the layer's own words, and what is lawful must pass."""

from __future__ import annotations

import pytest

from penstock.api.names import PROBE_NAMESPACE
from penstock.core.residency import attempts, trying
from penstock.core.residency.attempts import Surroundings
from penstock.core.residency.enforcement import LAYERS
from penstock.core.residency.trying import Answer, Attempt, Prober, Verdict

HERE = Surroundings("penstock-system", "ab12", ["nvidia.com/", "amd.com/gpu"], 0.0, "gpu-0", ("eu", "uid"))
NOW_TIME = 1_800_000_000.0


def by(policy: str, words: str) -> str:
    return f"pods is forbidden: ValidatingAdmissionPolicy 'acme-{policy}' with binding 'b' denied request: {words}"


RULED = by("residency-lift", "every term holds the law of its namespace: country ZZ")
BYPASSES = {
    "refused by the layer's policy in its own words": (Answer(403, RULED), Verdict.HOLDS),
    "taken": (Answer(200), Verdict.OPEN),
    "created": (Answer(201), Verdict.OPEN),
    "let through, but it cannot be done right now": (Answer(409, "conflict"), Verdict.OPEN),
    "refused since the policy's expression fails": (
        Answer(403, by("residency-lift", "expression 'x' resulted in error: no such key")),
        Verdict.UNTRIED,
    ),
    "refused by another policy of ours in the same words": (
        Answer(403, by("gate", "holds the law of its namespace: country")),
        Verdict.UNTRIED,
    ),
    "refused by a stranger's policy with the same words": (
        Answer(403, "denied the request: holds the law of its namespace: country"),
        Verdict.UNTRIED,
    ),
    "refused by RBAC": (Answer(403, "User 'u' cannot patch resource pods"), Verdict.UNTRIED),
    "refused by the schema": (Answer(422, "spec.containers: Required value"), Verdict.UNTRIED),
    "not there to be tried on": (Answer(404, "pods 'verify-replica' not found"), Verdict.UNTRIED),
}


def attempt(refusal: str = "", layer: str = "lift", name: str = "a lift") -> Attempt:
    return Attempt(layer, name, Prober.USER, "PATCH", "/pods/x", {}, refusal)


@pytest.mark.parametrize(("answer", "verdict"), BYPASSES.values(), ids=BYPASSES)
def test_a_bypass_that_is(answer: Answer, verdict: Verdict) -> None:
    found = trying.judge(attempt("holds the law of its namespace: country"), answer)
    assert found.verdict is verdict
    assert (answer.message in found.told) == (verdict is not Verdict.OPEN or not answer.message)


LAWFUL = {
    "taken": (Answer(200), Verdict.HOLDS),
    "let through, but it cannot be done right now": (Answer(409, "conflict"), Verdict.HOLDS),
    "refused by the layer": (Answer(403, RULED), Verdict.OPEN),
    "refused since the layer's expression fails": (
        Answer(403, by("residency-lift", "expression 'x' resulted in error: no such key")),
        Verdict.OPEN,
    ),
    "refused by somebody else": (Answer(403, "exceeded quota"), Verdict.UNTRIED),
}


@pytest.mark.parametrize(("answer", "verdict"), LAWFUL.values(), ids=LAWFUL)
def test_what_is_lawful_and(answer: Answer, verdict: Verdict) -> None:
    assert trying.judge(attempt(), answer).verdict is verdict


def test_a_layer_holds_where_every_attempt_went_as_it_must_and_tells_what_was_open_before_what_was_not_tried() -> None:
    untried = trying.judge(attempt("words", name="one"), Answer(422, "no"))
    opened = trying.judge(attempt("words", name="two"), Answer(200))
    held = trying.judge(attempt("words", "gate"), Answer(403, by("gate", "words")))
    found = {one.name: one for one in trying.layers((untried, opened, held), NOW_TIME)}
    assert list(found) == list(LAYERS)
    assert (found["lift"].verified, found["lift"].why) == (False, "two (user) was not refused")
    assert (found["gate"].verified, found["gate"].why) == (True, "")
    assert (found["places"].verified, found["places"].why) == (False, "was not tried")


def test_no_two_attempts_have_a_name_in_common() -> None:
    keys = [one.key for one in attempts.attempts(HERE)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_is_tried_by_bypasses(layer: str) -> None:
    tried = [one for one in attempts.attempts(HERE) if one.layer == layer]
    assert [one for one in tried if one.refusal]


@pytest.mark.parametrize("layer", sorted({*LAYERS} - {"laws"}))
def test_each_layer_but_one_is_tried_by_what_is_lawful(layer: str) -> None:
    """Nobody whom the verifier may be writes a policy lawfully."""
    assert [one for one in attempts.attempts(HERE) if one.layer == layer and not one.refusal]


def test_whatever_probes_ask_for_is_a_dry_run_but_the_one_write_that_would_change_nothing() -> None:
    real = [one for one in attempts.attempts(HERE) if not one.dry_run]
    assert [(one.layer, one.method, one.path, one.body) for one in real] == [
        ("probes", "PATCH", f"/api/v1/namespaces/{PROBE_NAMESPACE}", {})
    ]


def test_pods_are_tried_only_where_no_place_is_lawful_and_those_that_are_made_wait_behind_our_gate() -> None:
    paths = {one.path for one in attempts.attempts(HERE) if "/pods" in one.path or "/bindings" in one.path}
    assert all(path.startswith(f"/api/v1/namespaces/{PROBE_NAMESPACE}/") for path in paths)
    assert all(pod["spec"]["schedulingGates"] for pod in attempts.fixtures(HERE))


def test_where_there_is_no_node_and_no_policy_edits_of_them_are_not_tried() -> None:
    bare = attempts.attempts(Surroundings("penstock-system", "ab12", ["nvidia.com/"], 0.0))
    assert not [one for one in bare if one.method == "DELETE"]
    assert {one.method for one in bare if one.layer == "places"} == {"POST"}


RESOURCES = {
    "a vendor's domain": ("nvidia.com/", "nvidia.com/gpu"),
    "a whole name": ("amd.com/gpu", "amd.com/gpu"),
    "the beginning of a name": ("nvidia.com/mig-", "nvidia.com/mig-x"),
    "a domain without its slash": ("nvidia.com", "nvidia.com/gpu"),
    "the beginning of a domain": ("nvidia.", "nvidia.x/gpu"),
}


@pytest.mark.parametrize(("prefix", "resource"), RESOURCES.values(), ids=RESOURCES)
def test_what_is_asked_for_is_a_resource_that_the_schema_takes_where_the_chart_lists(
    prefix: str, resource: str
) -> None:
    assert attempts.resource_of(prefix) == resource
    assert resource.startswith(prefix)
