"""Whatever comes from outside, a reader reads it or says what is wrong with it. Longer: `nox -s fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadbench.core.errors import LoadbenchError
from tests.fuzz.inputs import inputs, seeds
from tests.fuzz.readers import READERS

# Of each reader, in the suite. `python -m tests.fuzz` tries as many as its time allows.
_EXAMPLES = 40


def reads(name: str, data: bytes) -> str:
    """The message with which a reader refuses this input, if it has several lines; any other exception is raised."""
    try:
        READERS[name].read(data)
    except LoadbenchError as error:
        return error.message if "\n" in error.message else ""
    return ""


@pytest.mark.parametrize("name", READERS)
def test_seeds_and_what_once_broke_it_are_read(name):
    """Each seed is read, or refused in a line; so is each input that was found to break the reader."""
    for seed in seeds(name):
        assert reads(name, seed) == ""


@pytest.mark.parametrize("name", READERS)
def test_no_input_breaks_a_reader(name):
    """Only errors for the user leave a reader, in one line that can be printed."""

    @settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        assert reads(name, data.draw(inputs(name))) == ""

    tried()
