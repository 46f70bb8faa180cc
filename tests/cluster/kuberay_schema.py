"""The part of KubeRay's schema that our manifest needs, strict.

    python -m tests.cluster.kuberay_schema CRD.yaml RELEASE

CRD.yaml is `helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml` of that release of KubeRay. Kubernetes drops
fields that a schema does not know; here they are refused, so that a field with a slip of the finger is found. What the
manifest does not use is left out, and the rest is as it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MANIFEST, SCHEMA = ROOT / "docs/kubernetes/raycluster.yaml", ROOT / "tests/data/kuberay/raycluster.v1.json"
_KEPT = ("type", "enum", "format", "minimum", "maximum", "minLength", "maxLength", "minItems", "pattern", "anyOf")


def part(schema: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    """What of a schema these values need, all of which stand at its place."""
    kept = {name: schema[name] for name in _KEPT if name in schema}
    if "properties" in schema:
        used = {name for value in values for name in value} & set(schema["properties"])
        kept["required"] = sorted(schema.get("required", ()))
        kept["additionalProperties"] = False
        kept["properties"] = {
            name: part(schema["properties"][name], [value[name] for value in values if name in value])
            for name in sorted(used | set(kept["required"]))
        }
    elif "additionalProperties" in schema:
        inner = [one for value in values for one in value.values()]
        kept["additionalProperties"] = part(schema["additionalProperties"], inner)
    elif "items" in schema:
        kept["items"] = part(schema["items"], [one for value in values for one in value])
    return kept


def main() -> None:
    """Write the part."""
    definition = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    (version,) = (one for one in definition["spec"]["versions"] if one["storage"])
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    names = definition["spec"]["names"]
    found = part(version["schema"]["openAPIV3Schema"], [manifest])
    found["properties"]["apiVersion"] = {"const": f"{definition['spec']['group']}/{version['name']}"}
    found["properties"]["kind"] = {"const": names["kind"]}
    found["required"] = ["apiVersion", "kind", "metadata", "spec"]
    comment = f"From the definition of RayCluster in KubeRay {sys.argv[2]} (github.com/ray-project/kuberay), and in it "
    comment += "that of pods in Kubernetes; both are under the Apache License 2.0, as loadbench is. Changed: "
    comment += f"tests/cluster/kuberay_schema.py has left out what {MANIFEST.name} does not use, and refuses it."
    SCHEMA.write_text(json.dumps({"$comment": comment, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
