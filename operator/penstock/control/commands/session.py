"""A person's command against one cluster: which API server, who, and in which namespace, as kubectl has it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from kubernetes.aio.config import ConfigException, list_kube_config_contexts

from penstock.cluster.access import find_access
from penstock.cluster.client import KubeClient
from penstock.errors import PenstockError
from penstock.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Target:
    """What `--kubeconfig`, `--context` and `--namespace` said; None where they said nothing."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def namespace_in_force(self) -> str:
        """The namespace asked for, else that of the context, else `default`."""
        if self.namespace:
            return self.namespace
        paths = str(self.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
        try:
            contexts, active = list_kube_config_contexts(paths)
        except ConfigException:
            return "default"
        chosen = next((one for one in contexts if one["name"] == self.context), active)
        return str(chosen["context"].get("namespace") or "default")


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[KubeClient]:
    """A client for the target. Raises PenstockError when the API server does not answer."""
    access = await find_access(str(target.kubeconfig) if target.kubeconfig else None, target.context)
    try:
        async with KubeClient(access, Metrics()) as client:
            yield client
    except (aiohttp.ClientError, TimeoutError) as error:
        raise PenstockError(f"no answer from the API server at {access.url}: {error}") from error
