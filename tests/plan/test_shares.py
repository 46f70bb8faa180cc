"""How requests are divided among the models of a mix and among several servers: exactly, whatever the timing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.setting_types import MODEL_MIX, URLS
from loadbench.plan.shares import Rotation
from loadbench.plan.sources import resolve

WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def rotation(weights, servers=1, *, key="k", prompts=0, users=1) -> Rotation:
    """A level's rotation."""
    return Rotation.begin([float(weight) for weight in weights], servers, key=key, prompts=prompts, users=users)


@given(WEIGHTS, st.integers(1, 4), st.integers(0, 500), st.integers(1, 5), st.integers(0, 20))
def test_every_run_of_places_is_divided_by_the_weights_and_among_the_servers(weights, servers, begin, turns, user):
    """From anywhere in the sequence, as many requests as the weights add up to are divided exactly by them, and each
    model's requests are divided among the servers as evenly as their number allows."""
    made = rotation(weights, servers)
    length = sum(weights) * turns
    places = [made.of(place, user) for place in range(begin, begin + length)]
    by_model = Counter(place // servers for place in places)
    assert by_model == {index: weight * turns for index, weight in enumerate(weights)}
    for model, count in by_model.items():
        by_server = Counter(place % servers for place in places if place // servers == model)
        assert all(by_server[server] in {count // servers, -(-count // servers)} for server in range(servers))


@given(WEIGHTS, st.integers(1, 4), st.integers(1, 40), st.integers(1, 6))
def test_no_prompt_is_always_with_one_model_or_one_server(weights, servers, prompts, users):
    """Given prompts come in turn, as models and servers do: over enough turns, each prompt meets each endpoint."""
    made = rotation(weights, servers, prompts=prompts, users=users)
    met: dict[int, Counter[int]] = {}
    turns = prompts * sum(weights) * servers
    for user in range(users):
        for turn in range(turns):
            met.setdefault((turn * users + user) % prompts, Counter())[made.of(turn, user)] += 1
    assert len(met) == prompts
    for endpoints in met.values():
        assert len(endpoints) == len(weights) * servers


@given(WEIGHTS, st.integers(1, 5), st.integers(1, 5), st.integers(0, 50))
def test_users_together_are_divided_as_one_is(weights, users, rounds, begin):
    """At any time the users' requests are a run of places, so however few they are, no model waits for its turn."""
    made = rotation(weights)
    period = sum(weights)
    counts = Counter(made.of(begin + turn, user) for turn in range(period * rounds) for user in range(users))
    assert counts == {index: weight * rounds * users for index, weight in enumerate(weights)}


@given(st.integers(2, 60), st.integers(1, 60), st.integers(1, 4), st.integers(0, 200))
def test_users_are_spread_over_the_servers_however_many_these_are(servers, users, turns, begin):
    """Users who are equally fast do not go round in a crowd: after a few requests for each server, every server has
    had as many as any other, give or take one or two."""
    made = rotation([1], servers, users=users)
    rounds = -(-turns * servers // users)
    counts = Counter(made.of(begin + turn, user) for turn in range(rounds) for user in range(users))
    fair = rounds * users / servers
    assert all(fair - 2 < counts[server] < fair + 2 for server in range(servers))


@pytest.mark.parametrize("servers", [1, 3])
def test_a_long_level_needs_no_more_memory_than_its_weights_add_up_to(servers):
    """The sequence repeats; so a request far ahead is as those at the beginning."""
    made = rotation([0.7, 0.2, 0.1], servers)
    far = 10**12 * servers
    assert [made.of(far * 10 + place) for place in range(30)] == [made.of(place) for place in range(30)]


def test_weights_are_what_was_written():
    """A tenth is no binary fraction: the sequence of 0.1 and 0.2 is that of 1 and 2."""
    tenths, whole = rotation([0.1, 0.2]), rotation([1, 2])
    offset = tenths.offset
    assert offset == whole.offset
    assert [tenths.of(place) for place in range(3000)] == [whole.of(place) for place in range(3000)]


def test_seed_and_level_say_where_the_sequence_begins():
    """The same for all workers, another one for another level or seed."""
    assert rotation([3, 1], key="0/m/1") == rotation([3, 1], key="0/m/1")
    offsets = {rotation([3, 1], key=f"{seed}/m/{level}").offset for seed in range(3) for level in range(3)}
    assert len(offsets) > 6
    assert rotation([1], key="0/m/1").offset == 0


@pytest.mark.parametrize(
    ("written", "shares"),
    [
        ("qwen2.5:3b=3,phi-4-mini=1", [("qwen2.5:3b", 3), ("phi-4-mini", 1)]),
        ("org/a:b,c", [("org/a:b", 1), ("c", 1)]),
        (("a=0.5", "b"), [("a", 0.5), ("b", 1)]),
        ({"a": 2, "x=y": 1}, [("a", 2), ("x=y", 1)]),
    ],
)
def test_a_mix_of_models_is_read(written, shares):
    """The weight is behind the last '='; names may have colons, slashes, and '=' themselves."""
    read = MODEL_MIX.read(written)
    assert [(share.name, share.weight) for share in read] == shares
    assert MODEL_MIX.read(MODEL_MIX.show(read)) == read


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("a", "at least 2 models"),
        ("a,a", "each model once"),
        ("a=2,a=1", "each model once"),
        ("a=0,b", "a: the weight is 0, want more than 0"),
        ("a=-1,b", "a: the weight is -1, want more than 0"),
        ("a=nan,b", "a: the weight is nan, want more than 0"),
        ("a=1e9,b", "a: the weight is 1e[+]09, want more than 0 and at most 1e[+]06"),
        ("a=x,b", "a: the weight 'x' is not a number; a name with '=' needs its weight behind it, as in a=x=1"),
        ({"a,b": 1, "c": 1}, "'a,b' has a comma"),
        ({"a": "", "c": 1}, "a: the weight '' is not a number"),
        ("a=1", "only a, want at least 2 models"),
        ("=1,b", "names no model"),
        ("a,,b", "names no model"),
        ("", "not empty"),
        (3, "models and their weights"),
    ],
)
def test_a_mix_of_models_that_cannot_be_is_refused(written, reason):
    """The message says what is missing."""
    with pytest.raises(ValueError, match=reason):
        MODEL_MIX.read(written)


@pytest.mark.parametrize(
    ("written", "urls"),
    [
        ("http://h:1/v1/", ("http://h:1/v1",)),
        ("http://h:1, HTTP://h:2/v1", ("http://h:1", "http://h:2/v1")),
        (("http://h:1", "http://h:2"), ("http://h:1", "http://h:2")),
        ("http://h:1/a,b", ("http://h:1/a,b",)),
    ],
)
def test_several_servers_are_read(written, urls):
    """Repeated flags, a list in a file, or one text with commas, as a variable has it."""
    assert URLS.read(written) == urls
    assert URLS.read(URLS.show(urls)) == urls


def test_one_server_twice_is_refused():
    """It would get twice the share of the others. The message has no secret of the URL."""
    with pytest.raises(ValueError, match="http://h:1 is given more than once, want each server once"):
        URLS.read(("http://h:1", "http://h:2", "http://h:1/"))
    with pytest.raises(ValueError, match="each server once") as refused:
        URLS.read(("http://me:hunter2@h:1?key=topsecret", "http://me:hunter2@h:1/?key=topsecret"))
    assert "hunter2" not in str(refused.value)
    assert "topsecret" not in str(refused.value)


def test_one_url_is_recorded_as_before():
    """A run of one server has a text there, and one of several a list."""
    one = resolve(flags={"url": ("http://h:1",)}, environment={})
    two = resolve(flags={}, environment={"LOADBENCH_URL": "http://h:1,http://h:2"})
    assert one.effective()["target"]["url"] == "http://h:1"
    assert two.effective()["target"]["url"] == ["http://h:1", "http://h:2"]
