"""Adapters by name: `--adapter onnx-genai:models/phi-4-mini` is an entry point of the group `loadbench.adapters`.

An entry point is a callable that takes the text after the colon and returns a `loadbench.client.adapter.Adapter`. Your
own package declares one like this:

    [project.entry-points."loadbench.adapters"]
    mine = "my_package:make_adapter"

docs/adapters.md has a complete example.
"""

from __future__ import annotations

import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput, LoadbenchError, TargetUnavailable
from loadbench.targets.target import Target
from loadbench.wire.openai import clean

if TYPE_CHECKING:
    from loadbench.client.adapter import Adapter

GROUP = "loadbench.adapters"
# These come with loadbench; an extra of the same name installs what each needs.
_INCLUDED = ("onnx-genai", "transformers")
_PARTS = ("name", "parallel", "load", "generate", "aclose")


def make_adapter(spec: str) -> Adapter:
    """The adapter that `NAME:MODEL` names, not loaded yet; raises `BadInput` if it is not installed or not usable."""
    name, _, model = spec.partition(":")
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        names = ", ".join(sorted(installed)) or "none"
        raise BadInput(f"--adapter {spec}: no adapter {name!r} is installed", hint=f"installed: {names}")
    if not model:
        raise BadInput(f"--adapter {spec}: the model is missing", hint=f"as in --adapter {name}:PATH")
    try:
        adapter: Adapter = installed[name].load()(model)
    except ImportError as error:
        extra = f": pip install 'loadbench[{name}]'" if name in _INCLUDED else ""
        raise BadInput(f"--adapter {spec}: {error}", hint=f"install what it needs{extra}") from None
    except LoadbenchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a foreign package raises, there is no adapter
        hint = f"look up what {name!r} expects after the colon"
        raise BadInput(f"--adapter {spec}: {_error_text(error)}", hint=hint) from None
    lacking = [part for part in _PARTS if not hasattr(adapter, part)]
    if lacking:
        problem = f"what {name!r} returns is not an adapter: it has no {', '.join(lacking)}"
        raise BadInput(f"--adapter {spec}: {problem}", hint="see loadbench.client.adapter.Adapter")
    return adapter


def adapter_target(spec: str) -> Target:
    """The target that is one model in this process; raises `BadInput` as `make_adapter` does."""
    adapter = make_adapter(spec)
    return Target(base_url=f"adapter:{spec}", models=(adapter.name,), server=spec.partition(":")[0], adapter=adapter)


async def load(adapter: Adapter) -> int:
    """Load the adapter's model and return the duration in ns; raises `TargetUnavailable` if that fails."""
    began_ns = time.perf_counter_ns()
    try:
        await adapter.load()
    except LoadbenchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a foreign model raises, it cannot be tested
        raise TargetUnavailable(f"the model {adapter.name} cannot be loaded: {_error_text(error)}") from None
    return time.perf_counter_ns() - began_ns


async def release(adapter: Adapter) -> None:
    """Unload the adapter's model; raises `TargetUnavailable` if that fails."""
    try:
        await adapter.aclose()
    except Exception as error:  # noqa: BLE001 - whatever a foreign model raises
        raise TargetUnavailable(f"the model {adapter.name} cannot be unloaded: {_error_text(error)}") from None


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {clean(str(error))}".rstrip(": ")
