"""Namespaces, as far as the law goes by them."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Struct

from penstock.api.names import LAW_PREFIX
from penstock.cluster.objects import Namespace
from penstock.cluster.parse.scheduling import frozen_labels


class NamespaceMetadata(Struct, gc=False):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletionTimestamp: datetime | None = None


class WireNamespace(Struct, gc=False):
    metadata: NamespaceMetadata


decode_namespace = msgspec.json.Decoder(WireNamespace).decode


def namespace(seen: WireNamespace) -> Namespace:
    """A namespace of the cluster."""
    written = {key: text for key, text in (seen.metadata.annotations or {}).items() if _is_law(key)}
    return Namespace(
        name=seen.metadata.name,
        uid=seen.metadata.uid,
        labels=frozen_labels(seen.metadata.labels),
        law=frozen_labels(written),
        terminating=seen.metadata.deletionTimestamp is not None,
    )


def _is_law(key: str) -> bool:
    prefix, _, _ = key.partition("/")
    return prefix == LAW_PREFIX or prefix.endswith(f".{LAW_PREFIX}")
