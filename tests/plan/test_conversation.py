"""Conversations: what is said before a turn, and where the next one begins."""

from __future__ import annotations

from collections import Counter

from loadbench.plan.conversation import Turn, user_message
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.sources import resolve


def test_a_turn_says_again_what_was_said():
    """Questions and answers alternate, oldest first."""
    second = Turn(of=3).after(user_message("Why?"), "Because.")
    assert second == Turn(2, 3, (*user_message("Why?"), {"role": "assistant", "content": "Because."}))
    third = second.after(user_message("Really?"), "Yes.")
    assert third.number == 3
    assert third.history == (*second.history, *user_message("Really?"), {"role": "assistant", "content": "Yes."})


def test_a_conversation_ends_with_its_last_turn_or_without_an_answer():
    """After either nothing is left to go on from; an empty answer is one."""
    assert Turn(3, 3).after(user_message("Why?"), "Because.") is None
    assert Turn(1, 3).after(user_message("Why?"), None) is None
    assert Turn(1, 3).after(user_message("Why?"), "").history[-1] == {"role": "assistant", "content": ""}


def test_turns_are_drawn_with_the_first_prompt():
    """From 2 to 6 all lengths come, by seed and number; without turns there are no conversations."""
    flags = {"turns": "uniform:2,6"}
    source = prompt_source(resolve(flags=flags, environment={}).work, key="m/0", calibration=None)
    drawn = [source.next(number, 0).turns for number in range(500)]
    assert set(Counter(drawn)) == {2, 3, 4, 5, 6}
    assert drawn == [source.next(number, 3).turns for number in range(500)]
    plain = prompt_source(resolve(flags={}, environment={}).work, key="m/0", calibration=None)
    assert plain.next(0, 0).turns is None
    # Nothing else about the prompts changes.
    assert plain.next(7, 0).text == source.next(7, 0).text
