"""Log lines of the long-running commands: one JSON object each, on standard error."""

import logging
import sys

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter


def configure(level: str) -> None:
    """Send every log line, those of libraries too, through one JSON handler; `level` is a name such as `INFO`."""
    handler = logging.StreamHandler(sys.stderr)
    # Kopf tells of each event that a handler took, and hangs live objects on its records that no JSON can hold.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            timestamp="time",
            rename_fields={"levelname": "level", "name": "logger"},
            reserved_attrs=[*RESERVED_ATTRS, "settings", "k8s_ref", "k8s_skip"],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
