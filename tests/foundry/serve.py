"""Foundry Local's real web service, offline, with models of our own; run by a Python that has its SDK.

    python tests/foundry/serve.py FOLDER nano=MODEL_FOLDER [mini=MODEL_FOLDER …]

The service wants its catalogue from the network. Where it cannot have it, it takes `foundry.modelinfo.json` from its
model cache, and what that names is served from the cache. Prints one line of JSON with the URL, and serves until its
standard input ends.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

CONTEXT = 1024


def entry(alias: str) -> dict[str, object]:
    """What the catalogue says of a model; of its context it says too much, as catalogues do."""
    name = f"{alias}-generic-cpu"
    return {
        "id": f"{name}:1",
        "name": name,
        "version": 1,
        "alias": alias,
        "uri": f"azureml://registries/lab/models/{name}/versions/1",
        "displayName": name,
        "modelType": "ONNX",
        "providerType": "FoundryLocal",
        "publisher": "lab",
        "license": "MIT",
        "task": "chat-completion",
        "fileSizeMb": 1,
        "maxOutputTokens": CONTEXT,
        "createdAt": 1767225600,
        "runtime": {"deviceType": "CPU", "executionProvider": "CPUExecutionProvider"},
        "stringProperties": {
            "display_name": name,
            "input_modalities": "text",
            "output_modalities": "text",
            "license": "MIT",
            "model_provider": "FoundryLocal",
            "publisher": "lab",
            "task": "chat-completion",
            "type": "ONNX",
        },
        "intProperties": {
            "context_length": 4 * CONTEXT,
            "max_output_tokens": CONTEXT,
            "filesize_mb": 1,
            "created_at_unix": 1767225600,
        },
    }


def seed(cache: Path, models: dict[str, Path]) -> None:
    """Lay the models and their catalogue into the cache."""
    for alias, source in models.items():
        where = cache / "Local" / f"{alias}-generic-cpu-1"
        shutil.copytree(source, where, dirs_exist_ok=True)
        (where / "inference_model.json").write_text(json.dumps({"Name": f"{alias}-generic-cpu:1"}))
    told = {"version": 1, "savedAtUnix": int(time.time()), "models": [entry(alias) for alias in models]}
    (cache / "foundry.modelinfo.json").write_text(json.dumps(told))


def main() -> None:
    """Serve until the end of the input."""
    folder = Path(sys.argv[1])
    seed(folder / "cache", {alias: Path(path) for alias, path in (one.split("=", 1) for one in sys.argv[2:])})
    from foundry_local_sdk import Configuration, FoundryLocalManager  # noqa: PLC0415 - of the other Python

    web = Configuration.WebService(urls="http://127.0.0.1:0")
    FoundryLocalManager.initialize(
        Configuration(
            app_name="loadbench-test",
            app_data_dir=str(folder / "data"),
            model_cache_dir=str(folder / "cache"),
            logs_dir=str(folder / "logs"),
            web=web,
            disable_nonessential_telemetry=True,
        )
    )
    manager = FoundryLocalManager.instance
    manager.catalog.list_models()
    manager.start_web_service()
    print(json.dumps({"url": manager.urls[0]}), flush=True)  # noqa: T201 - that is how it is told
    sys.stdin.read()
    manager.stop_web_service()


if __name__ == "__main__":
    main()
