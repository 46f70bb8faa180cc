"""Whom a cluster trusts: without a token anybody, so that is refused beyond this machine unless the user says so."""

from __future__ import annotations

import pytest

from loadbench.cluster import connection
from loadbench.cluster.connection import check_cluster
from loadbench.core.errors import BadInput
from loadbench.plan.cluster import parse_cluster


@pytest.fixture(autouse=True)
def with_ray(tmp_path, monkeypatch):
    """Ray is installed, and nothing is said of tokens."""
    monkeypatch.setattr(connection, "find_spec", lambda _: object())
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "_TOKEN_FILE", tmp_path / "none")


@pytest.mark.parametrize("text", ["auto", "10.0.0.7:6379", "ray://head.example:10001"])
def test_a_cluster_that_others_reach_needs_a_token(text, monkeypatch):
    """What is said has the reason and both remedies; a token in the environment, or the user's word, is enough."""
    with pytest.raises(BadInput, match="can run programs on all of its nodes") as refused:
        check_cluster(parse_cluster(text), insecure=False)
    assert "RAY_AUTH_TOKEN" in refused.value.hint
    assert "--insecure-cluster" in refused.value.hint
    check_cluster(parse_cluster(text), insecure=True)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_cluster(parse_cluster(text), insecure=False)


@pytest.mark.parametrize("text", ["local:2", "ray://127.0.0.1:10001", "localhost:6379"])
def test_a_loopback_address_is_looked_at_when_its_nodes_are_known(text):
    """Others may reach it all the same, if it is a port that leads elsewhere: that is seen at its nodes."""
    check_cluster(parse_cluster(text), insecure=False)


def test_without_ray_the_remedy_is_named(monkeypatch):
    """Before anything starts."""
    monkeypatch.setattr(connection, "find_spec", lambda _: None)
    with pytest.raises(BadInput, match="needs Ray") as refused:
        check_cluster(parse_cluster("local:2"), insecure=False)
    assert "loadbench[ray]" in refused.value.hint


@pytest.mark.parametrize("there", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "file"])
def test_a_token_that_ray_has_is_used_unless_somebody_says_otherwise(there, tmp_path, monkeypatch):
    """As by nodes, which are started without a word where Ray has one."""
    monkeypatch.setattr(connection, "_TOKEN_FILE", tmp_path / "auth_token")
    if there == "file":
        (tmp_path / "auth_token").write_text("t")
    else:
        monkeypatch.setenv(there, "t")
    check_cluster(parse_cluster("auto"), insecure=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(BadInput, match="without token authentication"):
        check_cluster(parse_cluster("auto"), insecure=False)


def test_auto_starts_no_cluster(monkeypatch):
    """RAY_ADDRESS may say so to Ray; here it names one that runs."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(BadInput, match="RAY_ADDRESS is 'local', want HOST:PORT"):
        check_cluster(parse_cluster("auto"), insecure=True)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    check_cluster(parse_cluster("auto"), insecure=True)


@pytest.mark.parametrize("text", ["LOCAL:2", "Local:2", "ray://local:2"])
def test_no_machine_is_called_local(text):
    """Else what was meant as nodes of this machine would be refused for its token."""
    with pytest.raises(ValueError, match="did you mean local:2"):
        parse_cluster(text)
