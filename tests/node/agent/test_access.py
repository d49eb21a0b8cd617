"""How the agent finds the API server and what it says who it is."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.agent.access import Access, find_access, from_kubeconfig
from penstock.errors import InvalidInput


def kubeconfig(directory: Path, user: dict[str, Any], **cluster: Any) -> Path:
    config = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "rig", "user": "agent"}},
            {"name": "there", "context": {"cluster": "other", "user": "agent"}},
        ],
        "clusters": [
            {"name": "rig", "cluster": {"server": "http://127.0.0.1:1/", **cluster}},
            {"name": "other", "cluster": {"server": "http://127.0.0.1:2"}},
        ],
        "users": [{"name": "agent", "user": user}],
    }
    path = directory / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


def test_the_current_context_is_taken_unless_one_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "secret"})
    assert from_kubeconfig(path) == Access("http://127.0.0.1:1", fixed_token="secret")
    assert from_kubeconfig(path, "there").server == "http://127.0.0.1:2"


def test_a_token_file_is_read_again_each_time_and_lies_beside_the_kubeconfig(tmp_path: Path) -> None:
    access = from_kubeconfig(kubeconfig(tmp_path, {"tokenFile": "token"}))
    (tmp_path / "token").write_text("first\n")
    assert access.token() == "first"
    (tmp_path / "token").write_text("second\n")
    assert access.token() == "second"


@pytest.mark.parametrize(
    ("user", "cluster", "field"),
    (
        pytest.param({"exec": {"command": "aws"}}, {}, "exec", id="a login command is not run"),
        pytest.param({"username": "me"}, {}, "username", id="no passwords"),
        pytest.param(
            {},
            {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True},
            "insecure-skip-tls-verify",
            id="a server is always verified",
        ),
    ),
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput, match=field):
        from_kubeconfig(kubeconfig(tmp_path, user, **cluster))


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="kubeconfig contexts: 'nowhere'"):
        from_kubeconfig(kubeconfig(tmp_path, {}), "nowhere")


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        find_access(tmp_path / "none", None)


def test_the_environment_names_the_kubeconfig_where_no_pod_does(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "secret"})
    assert find_access(None, None, {"KUBECONFIG": str(path)}).fixed_token == "secret"


def test_a_broken_certificate_is_refused(tmp_path: Path) -> None:
    broken = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n").decode()
    path = kubeconfig(tmp_path, {}, server="https://127.0.0.1:1", **{"certificate-authority-data": broken})
    with pytest.raises(InvalidInput, match="certificate-authority"):
        from_kubeconfig(path)


@pytest.mark.parametrize("text", ("", "[]", "contexts: [{}]", "{unclosed"))
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="kubeconfig"):
        from_kubeconfig(path)
