"""Responses and their ratings: `annotation.json`, which people fill in, and `quality.json`, which keeps the ratings.

    loadbench.annotation/1   the first
    loadbench.quality/1      the first

An annotation has responses with a null for each score, which raters replace by whole numbers from 1 to 5. The quality
of a run keeps the ratings of each rater separately: a person, a judge, and a judge's second pass are three raters. Each
rating has the digest of its response, so that ratings of different texts are not taken for a disagreement.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from loadbench.core.errors import BadInput
from loadbench.core.text import digest
from loadbench.plan.rubric import HIGHEST, LOWEST
from loadbench.results.folder import read_plain

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T", bound=msgspec.Struct)

ANNOTATION: Final = "loadbench.annotation/1"
QUALITY: Final = "loadbench.quality/1"
ANNOTATION_FILE = "annotation.json"
QUALITY_FILE = "quality.json"
# Enough for the responses of hundreds of prompts and models; a larger file is not one of loadbench.
_MOST_BYTES = 64 * 1024 * 1024
_SCALE = (
    f"write a whole number from {LOWEST} (bad) to {HIGHEST} (good) in place of null; leave null what you cannot judge"
)


class RatedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One response to rate: `scores` and `checks` by facet; `failure` says why there is no response."""

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
    """Responses with room for scores; `rater` is who gives them. Not `complete` if the judging was stopped."""

    schema: Literal["loadbench.annotation/1"] = ANNOTATION
    how: str = _SCALE
    rater: str = "human"
    run: str = ""
    complete: bool = True
    answers: list[RatedResponse]


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """The score of one response in one facet, by one rater."""

    model: str
    prompt: int
    facet: str
    score: int
    rater: str
    answer_hash: str
    note: str = ""


class FacetCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a response contains what a facet expects."""

    model: str
    prompt: int
    facet: str
    found: bool
    answer_hash: str


class Unrated(msgspec.Struct, frozen=True, kw_only=True):
    """A response that a judge did not rate, and why."""

    model: str
    prompt: int
    rater: str
    reason: str


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of the quality of a run's responses."""

    schema: Literal["loadbench.quality/1"] = QUALITY
    ratings: list[Rating] = []
    checks: list[FacetCheck] = []
    unrated: list[Unrated] = []


def ratings_of(annotation: Annotation) -> list[Rating]:
    """The scores that were filled in."""
    return [
        Rating(
            model=response.model,
            prompt=response.prompt,
            facet=facet,
            score=score,
            rater=annotation.rater,
            answer_hash=response.answer_hash,
            note=response.note,
        )
        for response in annotation.answers
        for facet, score in response.scores.items()
        if score is not None
    ]


def merged(quality: Quality, annotation: Annotation, unrated: list[Unrated] | None = None) -> Quality:
    """The quality with a rater's ratings, which replace that rater's earlier ones.

    Earlier ratings stay for responses that an incomplete annotation does not have.
    """
    rated = {(response.model, response.prompt) for response in annotation.answers}

    def stays(entry: Rating | FacetCheck | Unrated) -> bool:
        of_another = not isinstance(entry, FacetCheck) and entry.rater != annotation.rater
        return of_another or (not annotation.complete and (entry.model, entry.prompt) not in rated)

    checks = [
        FacetCheck(model=given.model, prompt=given.prompt, facet=facet, found=found, answer_hash=given.answer_hash)
        for given in annotation.answers
        if not given.failure
        for facet, found in given.checks.items()
    ]
    return Quality(
        ratings=[*filter(stays, quality.ratings), *ratings_of(annotation)],
        checks=[*filter(stays, quality.checks), *checks],
        unrated=[*filter(stays, quality.unrated), *(unrated or [])],
    )


def read_annotation(path: Path) -> Annotation:
    """The annotation in a file, with its scores checked.

    Raises `BadInput` that names the file, the response and the facet with a mistake.
    """
    annotation = _decoded(path, Annotation, ANNOTATION)
    if not annotation.rater.strip():
        raise BadInput(f"{path}: rater: is empty", hint="write who gave the scores")
    for number, response in enumerate(annotation.answers):
        place = f"{path}: answers[{number}] ({response.model}, prompt {response.prompt})"
        if digest(response.answer) != response.answer_hash:
            raise BadInput(
                f"{place}: the response text was changed", hint="rate the original text; write the stub again"
            )
        for facet, score in response.scores.items():
            if score is not None and not LOWEST <= score <= HIGHEST:
                wanted = f"a whole number from {LOWEST} to {HIGHEST}, or null"
                raise BadInput(f"{place}: {facet}: found {score}, want {wanted}")
    return annotation


def read_quality(folder: Path) -> Quality:
    """The folder's `quality.json`, empty if there is none. Raises `BadInput` for one that cannot be read."""
    path = folder / QUALITY_FILE
    return _decoded(path, Quality, QUALITY) if path.exists() else Quality()


def _decoded(path: Path, kind: type[T], schema: str) -> T:
    try:
        raw = read_plain(path, named=kind is Annotation, most_bytes=_MOST_BYTES)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", hint="`loadbench score stub RUN` writes one") from None
    try:
        # Some editors mark a file as UTF-8.
        return msgspec.json.decode(raw.removeprefix(codecs.BOM_UTF8), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"{path}: not of schema {schema}: {error}", hint="fix the file at this place, or write it again"
        ) from None
