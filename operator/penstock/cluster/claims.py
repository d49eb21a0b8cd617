"""What Dynamic Resource Allocation gave to pods, which may be known already, or not yet."""

from __future__ import annotations

from penstock.cluster.objects import ResourceClaim


class Claims:
    """The claims of the cluster, and by pod what it holds through them."""

    def __init__(self) -> None:
        self._claims: dict[str, ResourceClaim] = {}
        self._of_pod: dict[str, dict[str, ResourceClaim]] = {}

    def put(self, claim: ResourceClaim) -> frozenset[str]:
        """Take in a claim; the pods (by uid) that hold more or less by it."""
        known = self._claims.get(claim.key)
        if known == claim:
            return frozenset()
        gone = self._let_go(claim.key, known.pods - claim.pods if known else frozenset())
        self._claims[claim.key] = claim
        for uid in claim.pods:
            self._of_pod.setdefault(uid, {})[claim.key] = claim
        return gone | claim.pods

    def delete(self, key: str) -> frozenset[str]:
        """Drop a claim; the pods that hold less by it."""
        gone = self._claims.pop(key, None)
        return self._let_go(key, gone.pods) if gone else frozenset()

    def of(self, uid: str) -> frozenset[str]:
        """The GPUs that a pod holds through claims."""
        return frozenset(gpu for claim in self._of_pod.get(uid, {}).values() for gpu in claim.gpus)

    def _let_go(self, key: str, uids: frozenset[str]) -> frozenset[str]:
        for uid in uids:
            members = self._of_pod.get(uid, {})
            members.pop(key, None)
            if not members:
                self._of_pod.pop(uid, None)
        return uids
