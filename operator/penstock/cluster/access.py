"""Where the API server is and how we prove who we are: kubectl's conventions, or the pod's own ServiceAccount.

The loader of the official client reads kubeconfigs (lists of files, relative paths, exec plugins, token files, client
certificates); what it finds is kept as plain values, and read anew every minute, because tokens are short-lived.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger

from penstock.errors import InvalidInput

TOKEN_AGE_SECONDS = 60.0
"""How long a token is used before its source is read again; kubelets rotate long before the old one expires."""

Reload = Callable[[Configuration], Awaitable[None]]


@dataclass
class Access:
    """One API server and one identity.

    `ssl_context` is None for plain HTTP; `server_name` is the name in the API server's certificate and `proxy` an HTTP
    proxy's URL, None where not set.
    """

    url: str
    ssl_context: ssl.SSLContext | None
    server_name: str | None
    proxy: str | None
    _configuration: Configuration
    _reload: Reload
    _read_at: float = field(default_factory=time.monotonic)
    _user: str = ""

    def impersonating(self, user: str) -> Access:
        """The same identity speaking as `user`, for which it needs the right to impersonate exactly that one."""
        return replace(self, _user=user)

    async def headers(self) -> dict[str, str]:
        """The headers that authenticate a request; empty with a client certificate."""
        if time.monotonic() - self._read_at > TOKEN_AGE_SECONDS:
            # Marked first: who asks meanwhile, from another thread's loop perhaps, goes on with the old token.
            self._read_at = time.monotonic()
            await self._reload(self._configuration)
        token = self._configuration.api_key.get("BearerToken", "").strip()
        return ({"Authorization": token} if token else {}) | ({"Impersonate-User": self._user} if self._user else {})

    def session(self) -> aiohttp.ClientSession:
        """A new HTTP session that authenticates each request by itself; the caller closes it."""

        async def authenticate(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            request.headers.update(await self.headers())
            if self.server_name:
                request.server_hostname = self.server_name
            return await handler(request)

        connector = aiohttp.TCPConnector(limit=0, ssl=self.ssl_context or True)
        return aiohttp.ClientSession(connector=connector, proxy=self.proxy, middlewares=(authenticate,))


async def find_access(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """Find the API server as kubectl does: `kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, else the pod we run in.

    Raises InvalidInput with the remedy when there is none, or when the named one cannot be used.
    """
    paths = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    if _any_exists(paths):
        return await _from_kubeconfig(paths, context)
    if kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ:
        remedy = "name an existing kubeconfig with --kubeconfig or KUBECONFIG, or run inside a cluster"
        raise InvalidInput("kubeconfig", paths, remedy)
    return await _from_pod()


def _any_exists(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


async def _from_kubeconfig(paths: str, context: str | None) -> Access:
    try:
        merged = KubeConfigMerger(paths).config
        loader = KubeConfigLoader(
            config_dict=merged, active_context=context or _current_context(paths), config_base_path=None
        )
        configuration = _empty_configuration()
        await loader.load_and_set(configuration)
    except (ConfigException, yaml.YAMLError, OSError, TypeError, KeyError) as error:
        raise InvalidInput("kubeconfig", paths, f"repair it, `kubectl config view` helps: {error}") from error
    return _access(configuration, loader.load_and_set)


def _current_context(paths: str) -> str | None:
    # kubectl takes the first file that sets it; the loader's own merge takes the last.
    for path in paths.split(os.pathsep):
        file = Path(path).expanduser()
        if path and file.is_file():
            found = (yaml.safe_load(file.read_text()) or {}).get("current-context")
            if found:
                return str(found)
    return None


async def _from_pod() -> Access:
    async def reload(configuration: Configuration) -> None:
        load_incluster_config(configuration, try_refresh_token=False)

    configuration = _empty_configuration()
    try:
        await reload(configuration)
    except ConfigException as error:
        remedy = f"mount a ServiceAccount token into the pod: {error}"
        raise InvalidInput("automountServiceAccountToken", "false", remedy) from error
    return _access(configuration, reload)


def _empty_configuration() -> Configuration:
    # The class hands out copies of a process-wide default when called; a fresh one has no hidden past.
    fresh: Configuration = type.__call__(Configuration)
    return fresh


def _access(configuration: Configuration, reload: Reload) -> Access:
    url = str(configuration.host).rstrip("/")
    return Access(
        url=url,
        ssl_context=_ssl_context(configuration) if url.startswith("https") else None,
        server_name=_text(configuration, "tls_server_name"),
        proxy=_text(configuration, "proxy"),
        _configuration=configuration,
        _reload=reload,
    )


def _text(configuration: Any, name: str) -> str | None:
    value = getattr(configuration, name, None)
    return str(value) if value else None


def _ssl_context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
