"""The manifest for Kubernetes is one that KubeRay takes, by the schema of its RayCluster."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
import yaml

from tests.cluster.kuberay_schema import MANIFEST, SCHEMA

CHECK = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def manifest():
    """As it is in the documents."""
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def test_the_manifest_is_valid():
    """Each field is one that KubeRay knows, and of the type that it wants."""
    assert list(CHECK.iter_errors(manifest())) == []


def test_the_manifest_asks_for_a_token_and_for_workers_that_are_not_on_the_head():
    """As docs/cluster.md says: without a token anybody could run programs there."""
    spec = manifest()["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (group,) = spec["workerGroupSpecs"]
    (spread,) = group["template"]["spec"]["topologySpreadConstraints"]
    labels = {"ray.io/cluster": manifest()["metadata"]["name"], "ray.io/group": group["groupName"]}
    assert spread["labelSelector"]["matchLabels"] == labels


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "authOption"), {"mode": "token"}),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "headGroupSpec", "template"), None),
        (("spec", "workerGroupSpecs", 0, "replicas"), "four"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resources", "limits", "cpu"), "4 cores"),
        (("apiVersion",), "ray.io/v2"),
    ],
)
def test_a_wrong_manifest_is_refused(place, value):
    """A field that KubeRay does not know, which Kubernetes would drop without a word, and values of another kind."""
    wrong = copy.deepcopy(manifest())
    inner = wrong
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert list(CHECK.iter_errors(wrong)) != []
