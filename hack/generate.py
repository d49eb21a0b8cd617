"""Regenerates every generated file: `python hack/generate.py`, or `--check` to only say what has drifted (exit 1)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import yaml
from grpc_tools import protoc

from bypasses_page import bypasses_page
from metrics_page import metrics_page
from penstock.api.crd import definition
from penstock.api.gpunode import GPUNode
from penstock.api.inferencepool import InferencePool
from penstock.api.jurisdictiongroup import JurisdictionGroup
from penstock.api.meta import Resource
from penstock.api.names import GROUP
from penstock.api.powerdomain import PowerDomain
from penstock.api.residencyexception import ResidencyException
from penstock.api.residencypolicy import ResidencyPolicy
from reference import reference

ROOT = Path(__file__).resolve().parent.parent

KINDS: tuple[type[Resource], ...] = (
    InferencePool,
    GPUNode,
    PowerDomain,
    ResidencyPolicy,
    JurisdictionGroup,
    ResidencyException,
)
PROTO = "penstock/agent/podresources_v1.proto"
HEADER = "# Generated from operator/penstock/api by hack/generate.py; edit the models, not this file.\n"


def crd_text(kind: type[Resource]) -> str:
    """The kind's CustomResourceDefinition as YAML."""
    return HEADER + yaml.safe_dump(definition(kind), sort_keys=False, allow_unicode=True, width=120)


def protobuf() -> dict[Path, str]:
    """What protoc makes of the kubelet's PodResources: the module and its types."""
    with tempfile.TemporaryDirectory() as made:
        command = ["protoc", f"-I{ROOT}/operator", f"--python_out={made}", f"--pyi_out={made}", PROTO]
        if protoc.main(command) != 0:
            raise SystemExit(f"protoc refused operator/{PROTO}")
        return {ROOT / "operator" / path.relative_to(made): path.read_text() for path in Path(made).rglob("*_pb2.py*")}


def generated() -> dict[Path, str]:
    """Every generated file of the repository, with the text that it must have."""
    pages = {"api.md": reference(KINDS), "metrics.md": metrics_page(), "bypasses.md": bypasses_page()}
    files = {ROOT / "docs" / name: text for name, text in pages.items()}
    for kind in KINDS:
        name, text = f"{GROUP}_{kind.definition.plural}.yaml", crd_text(kind)
        files[ROOT / "crds" / name] = text
        files[ROOT / "charts" / "penstock" / "files" / "crds" / name] = text
    return files | protobuf()


def drifted() -> list[Path]:
    """The files that are missing or say something else."""
    return [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]


def main(arguments: list[str]) -> int:
    stale = drifted()
    for path in stale:
        print(f"{'drifted' if '--check' in arguments else 'writing'} {path.relative_to(ROOT)}")
    if "--check" in arguments:
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
