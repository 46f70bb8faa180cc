"""Answers to be rated, and their ratings: `annotation.json`, which people fill in, and `quality.json`, which is kept.

    loadbench.annotation/1   the first
    loadbench.quality/1      the first

An annotation holds answers with a null for each score; whoever rates them writes whole numbers from 1 to 5 there. The
quality of a run holds every rater's ratings apart: a person, a judge, and a judge's second judging are three raters.
Each rating names the digest of the answer that it is of, so that ratings of different texts are never taken for
different opinions of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from loadbench.core.errors import BadInput
from loadbench.core.text import digest
from loadbench.plan.rubric import HIGHEST, LOWEST

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T", bound=msgspec.Struct)

ANNOTATION: Final = "loadbench.annotation/1"
QUALITY: Final = "loadbench.quality/1"
ANNOTATION_FILE = "annotation.json"
QUALITY_FILE = "quality.json"
# Answers of a few hundred prompts and models; what is larger was not written here.
_MOST_BYTES = 64 * 1024 * 1024
_SCALE = (
    f"write a whole number from {LOWEST} (bad) to {HIGHEST} (good) in place of null; leave null what you cannot tell"
)


class RatedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to be rated: `scores` by facet, `checks` what was expected and found. `failure` where none came."""

    model: str
    prompt: int
    prompt_hash: str
    prompt_text: str
    answer: str
    answer_hash: str
    finish_reason: str | None = None
    failure: str = ""
    scores: dict[str, int | None]
    checks: dict[str, bool] = {}
    note: str = ""


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """Answers with room for scores; `rater` is who gives them, in a word. Not `complete` where it was stopped."""

    schema: Literal["loadbench.annotation/1"] = ANNOTATION
    how: str = _SCALE
    rater: str = "human"
    run: str = ""
    complete: bool = True
    answers: list[RatedResponse]


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """One score that one rater gave one answer in one facet."""

    model: str
    prompt: int
    facet: str
    score: int
    rater: str
    answer_hash: str
    note: str = ""


class FacetCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an answer had in it what a facet expects."""

    model: str
    prompt: int
    facet: str
    found: bool
    answer_hash: str


class Unrated(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that a judge did not rate, and why."""

    model: str
    prompt: int
    rater: str
    reason: str


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a run's answers."""

    schema: Literal["loadbench.quality/1"] = QUALITY
    ratings: list[Rating] = []
    checks: list[FacetCheck] = []
    unrated: list[Unrated] = []


def ratings_of(annotation: Annotation) -> list[Rating]:
    """The scores that were filled in."""
    return [
        Rating(
            model=one.model,
            prompt=one.prompt,
            facet=facet,
            score=score,
            rater=annotation.rater,
            answer_hash=one.answer_hash,
            note=one.note,
        )
        for one in annotation.answers
        for facet, score in one.scores.items()
        if score is not None
    ]


def checks_of(annotation: Annotation) -> list[FacetCheck]:
    """What was looked for in the answers; nothing of those that did not come."""
    return [
        FacetCheck(model=one.model, prompt=one.prompt, facet=facet, found=found, answer_hash=one.answer_hash)
        for one in annotation.answers
        if not one.failure
        for facet, found in one.checks.items()
    ]


def merged(quality: Quality, annotation: Annotation, unrated: list[Unrated] | None = None) -> Quality:
    """The quality with a rater's ratings; they take the place of those that he or she gave before.

    An annotation that is not complete says nothing of the answers that it lacks: what is known of them stays.
    """
    there = {(one.model, one.prompt) for one in annotation.answers}

    def stays(one: Rating | FacetCheck | Unrated) -> bool:
        return not annotation.complete and (one.model, one.prompt) not in there

    rater = annotation.rater
    return Quality(
        ratings=[one for one in quality.ratings if one.rater != rater or stays(one)] + ratings_of(annotation),
        checks=[one for one in quality.checks if stays(one)] + checks_of(annotation),
        unrated=[one for one in quality.unrated if one.rater != rater or stays(one)] + (unrated or []),
    )


def read_annotation(path: Path) -> Annotation:
    """The annotation in a file, its scores checked.

    Raises `BadInput` with the file, the answer and the facet where something cannot be.
    """
    annotation = _decoded(path, Annotation, ANNOTATION)
    if not annotation.rater.strip():
        raise BadInput(f"{path}: rater: found an empty text", hint="write who gave the scores, in a word")
    for number, one in enumerate(annotation.answers):
        place = f"{path}: answers[{number}] ({one.model}, prompt {one.prompt})"
        if digest(one.answer) != one.answer_hash:
            raise BadInput(
                f"{place}: the answer's text was changed", hint="rate what the model said; write a stub anew"
            )
        for facet, score in one.scores.items():
            if score is not None and not LOWEST <= score <= HIGHEST:
                wanted = f"a whole number from {LOWEST} to {HIGHEST}, or null"
                raise BadInput(f"{place}: {facet}: found {score}, want {wanted}")
    return annotation


def read_quality(folder: Path) -> Quality:
    """What the folder's `quality.json` says; an empty quality where there is none. Raises `BadInput` for a bad one."""
    path = folder / QUALITY_FILE
    return _decoded(path, Quality, QUALITY) if path.exists() else Quality()


def _decoded(path: Path, kind: type[T], schema: str) -> T:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", hint="`loadbench score stub RUN` writes one") from None
    if len(raw) > _MOST_BYTES:
        raise BadInput(f"{path}: larger than {_MOST_BYTES >> 20} MiB", hint=f"name a file of schema {schema}")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not of schema {schema}: {error}", hint="mend it there, or write it anew") from None


def to_json(document: Annotation | Quality) -> bytes:
    """Indented JSON, fit to be edited and to be compared line by line."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
