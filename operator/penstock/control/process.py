"""The operator process: everything that is wired, and who watches whom. Any task's end ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from penstock.cluster.access import load_access
from penstock.cluster.client import KubeClient
from penstock.cluster.events import Events
from penstock.cluster.feeds import informers
from penstock.cluster.lease import Elector, Timing
from penstock.cluster.probes import Probes
from penstock.cluster.state import ClusterState
from penstock.cluster.status_writer import StatusWriter
from penstock.control.acts import Acts
from penstock.control.loop import ControlLoop
from penstock.control.report import Reporter
from penstock.control.workloads import Workloads
from penstock.metrics import Metrics
from penstock.settings import Settings

log = logging.getLogger(__name__)
