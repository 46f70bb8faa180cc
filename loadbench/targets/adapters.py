"""Adapters by their name: `--adapter onnx-genai:models/phi-4-mini` is one of the entry points `loadbench.adapters`.

An entry point is a callable that takes what stands behind the colon and returns a `loadbench.client.adapter.Adapter`; a
package of one's own declares it so:

    [project.entry-points."loadbench.adapters"]
    mine = "my_package:make_adapter"

docs/adapters.md has a complete example.
"""

from __future__ import annotations

import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput, LoadbenchError, TargetUnavailable
from loadbench.targets.openai import Target
from loadbench.wire.openai import clean

if TYPE_CHECKING:
    from loadbench.client.adapter import Adapter

GROUP = "loadbench.adapters"
# Those that come along, each with an extra of its name that installs what it needs.
_OURS = ("onnx-genai", "transformers")
_PARTS = ("name", "parallel", "load", "generate", "aclose")


def make_adapter(spec: str) -> Adapter:
    """The adapter that `NAME:MODEL` names, not loaded yet; raises `BadInput` for what is not installed, or none."""
    name, _, model = spec.partition(":")
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        there_are = ", ".join(sorted(found)) or "none"
        raise BadInput(f"--adapter {spec}: no adapter {name!r} is installed", hint=f"installed: {there_are}")
    if not model:
        raise BadInput(f"--adapter {spec}: says no model", hint=f"as in --adapter {name}:PATH")
    try:
        adapter: Adapter = found[name].load()(model)
    except ImportError as error:
        by = f": pip install 'loadbench[{name}]'" if name in _OURS else ""
        raise BadInput(f"--adapter {spec}: {error}", hint=f"install what it needs{by}") from None
    except LoadbenchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a foreign package raises, there is no adapter
        raise BadInput(f"--adapter {spec}: {_told(error)}", hint=f"see what {name!r} wants behind the colon") from None
    lacking = [part for part in _PARTS if not hasattr(adapter, part)]
    if lacking:
        what = f"what {name!r} makes is no adapter: it has no {', '.join(lacking)}"
        raise BadInput(f"--adapter {spec}: {what}", hint="see loadbench.client.adapter.Adapter")
    return adapter


def adapter_target(spec: str) -> Target:
    """The target that is one model in this process; raises `BadInput` as `make_adapter` does."""
    adapter = make_adapter(spec)
    return Target(base_url=f"adapter:{spec}", models=(adapter.name,), server=spec.partition(":")[0], adapter=adapter)


async def load(adapter: Adapter) -> int:
    """Load its model; returns the ns that this took. Raises `TargetUnavailable` where it cannot."""
    began_ns = time.perf_counter_ns()
    try:
        await adapter.load()
    except LoadbenchError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a foreign model raises, it cannot be tested
        raise TargetUnavailable(f"the model {adapter.name} cannot be loaded: {_told(error)}") from None
    return time.perf_counter_ns() - began_ns


async def release(adapter: Adapter) -> None:
    """Unload its model; raises `TargetUnavailable` where it fails to."""
    try:
        await adapter.aclose()
    except Exception as error:  # noqa: BLE001 - whatever a foreign model raises
        raise TargetUnavailable(f"the model {adapter.name} cannot be unloaded: {_told(error)}") from None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {clean(str(error))}".rstrip(": ")
