"""Rights of return that a domain's status holds are in force again after a start."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.cluster.objects import DomainObject
from penstock.control.power.returning import Rights
from penstock.core.model import PoolKey, RightOfReturn

RIGHT = {"namespace": "search", "pool": "llama", "watts": 2_235, "until": "1970-01-01T00:06:40Z"}
LLAMA = RightOfReturn("row-a", PoolKey("search", "llama"), 2_235.0, 400.0)

STATUSES: dict[str, tuple[dict[str, Any], tuple[RightOfReturn, ...]]] = {
    "what is written stands": ({"rightsOfReturn": [RIGHT]}, (LLAMA,)),
    "nothing written, nothing stands": ({}, ()),
    "a status that cannot be read any more keeps nobody from starting": ({"rightsOfReturn": [{"pool": 7}]}, ()),
}


@pytest.mark.parametrize(("status", "want"), STATUSES.values(), ids=STATUSES.keys())
def test_recall(status: dict[str, Any], want: tuple[RightOfReturn, ...]) -> None:
    rights = Rights(300.0)
    rights.recall([DomainObject("row-a", "uid-row-a", 1, "7", spec=None, status=status)])
    assert rights.standing == want
