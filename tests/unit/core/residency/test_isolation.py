"""What stands on a replica that was taken out of traffic, read back from whatever somebody wrote there."""

import json

import pytest

from penstock.core.model import Isolated
from penstock.core.residency import isolation
from penstock.core.residency.ceiling import Effective
from penstock.core.residency.isolation import LAST_TIME
from penstock.core.telling.figures import utc


def written(since: str) -> str:
    return f'{{"pool":"llama","since":{since},"drains":true,"message":"x"}}'


SPOILED = {
    "a time long before the first year": written("-1e18"),
    "a second before 1970": written("-1"),
    "a time that is no number": written("NaN"),
    "an endless time": written("Infinity"),
    "a time beyond every float": written("1e999"),
    "a whole number beyond every float": written("9" * 400),
    "a whole number of more digits than Python converts": written("9" * 5000),
    "the first second of the year 10000": written(str(LAST_TIME + 1)),
    "brackets without end": "[" * 100_000,
    "objects without end": '{"pool":' * 100_000,
    "half a character": json.dumps({"pool": "llama", "since": 1, "drains": True, "message": "\ud800"}),
    "a pool that is no name": '{"pool":{},"since":1,"drains":true,"message":"x"}',
    "no time": '{"pool":"llama","drains":true,"message":"x"}',
    "words": "US",
    "a list": "[]",
}


@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=SPOILED.keys())
def test_what_cannot_be_read_says_that_the_pod_is_isolated_and_nothing_else(spoiled: str) -> None:
    found = isolation.read(spoiled)
    assert found == Isolated("", 0.0, drains=False, message=spoiled)
    assert utc(found.since_time).year == 1970


@pytest.mark.parametrize("since_time", (0.0, 1_795_000_000.0, float(LAST_TIME)))
def test_what_the_operator_wrote_is_read_back_and_its_time_can_be_told(since_time: float) -> None:
    one = Isolated("llama", since_time, drains=True, message="node us-1 (US) is outside ResidencyPolicy/ours")
    assert isolation.read(isolation.text(one)) == one
    assert utc(since_time).year <= 9999


def test_a_pod_without_the_annotation_is_not_isolated() -> None:
    assert isolation.read("") is None


def test_of_many_laws_that_a_place_is_outside_of_the_first_are_named_and_the_others_counted() -> None:
    law = Effective(sources=tuple(f"ResidencyPolicy/{name}" for name in "abcdef"))
    four = "ResidencyPolicy/a, ResidencyPolicy/b, ResidencyPolicy/c, ResidencyPolicy/d"
    assert isolation.sentence(None, law) == f"its node is unknown, which is outside {four} and 2 more"
