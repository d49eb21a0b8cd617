"""Rights of return: which pools may come back to the watts that a replica of theirs left behind.

Kept in the PowerDomain's own status, so that a restart of ours takes nobody's watts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from penstock.api.powerdomain import PowerDomainStatus
from penstock.api.stored import stored
from penstock.cluster.objects import DomainObject
from penstock.control.picture import Picture
from penstock.core import lifecycle
from penstock.core.model import Mode, Pod, PoolKey, RightOfReturn
from penstock.core.power import book


@dataclass
class Rights:
    """The rights that stand now. `seconds` is how long one lasts."""

    seconds: float
    standing: tuple[RightOfReturn, ...] = ()

    def recall(self, domains: Iterable[DomainObject]) -> None:
        """After a start: what the domains' statuses say."""
        self.standing = tuple(right for one in domains for right in _written(one))

    def observe(self, picture: Picture, was_shed: Callable[[Pod], bool], now_time: float) -> None:
        """Give a right for each replica that went away since the last look otherwise than by shedding."""
        granted = [
            RightOfReturn(domain, pool.key, watts, now_time + self.seconds)
            for pool, pod in picture.departed
            if pool.rules.mode is Mode.ENFORCE and pool.key in picture.pools and not was_shed(pod)
            for domain, watts in book.reservation_watts(picture.before, pod)
            if watts > 0
        ]
        self.standing += tuple(granted)

    def keep_standing(self, picture: Picture, now_time: float) -> None:
        """Drop rights that are over, or whose pool has nothing to bring back."""
        if not self.standing:
            return
        missing = {
            str(key): max(pool.desired - len(roll.pinned) - len(roll.bound), len(roll.waiting))
            for key, pool in picture.pools.items()
            if (roll := picture.rolls.get(key))
        }
        self.standing = lifecycle.standing_rights(self.standing, missing, now_time)


def _written(found: DomainObject) -> Iterable[RightOfReturn]:
    for right in stored(PowerDomainStatus, found.status).rights_of_return:
        yield RightOfReturn(found.name, PoolKey(right.namespace, right.pool), right.watts, right.until.timestamp())
