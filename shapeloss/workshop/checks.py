"""Exercises that check themselves: `check("2.1", answer)` says right, or what is missing, without giving it away."""

from __future__ import annotations

import html
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EXERCISES: dict[str, tuple[str, Callable[[Any], str]]] = {}
"""Number → what is asked for, and the function that raises :class:`Wrong` or returns what to say to a right answer."""
PARTS = ("pulls", "distance_maps", "bugs", "own_loss", "scores", "evidence")
"""The modules of `shapeloss.workshop.exercises`, one for each notebook."""


class Wrong(Exception):
    """An answer is not right; the message says what is missing."""


def need(condition: Any, message: str) -> None:
    """Raise `Wrong(message)` unless the condition holds."""
    if not condition:
        raise Wrong(message)


def exercise(number: str, asked: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Register the check of an exercise; `asked` completes "not answered yet: …"."""

    def register(function: Callable[[Any], str]) -> Callable[[Any], str]:
        EXERCISES[number] = (asked, function)
        return function

    return register


@dataclass(frozen=True)
class Result:
    """What a check found; a notebook shows it as a green or a red box."""

    number: str
    right: bool
    message: str

    def __repr__(self) -> str:
        return f"{'✓' if self.right else '✗'} {self.number}: {self.message}"

    def _repr_html_(self) -> str:
        colour, word, mark = ("#1b7837", "Right", "✓") if self.right else ("#b2182b", "Not yet", "✗")
        return (
            f'<div role="status" style="border-left: 5px solid {colour}; padding: .3em .8em; margin: .3em 0">'
            f'<b style="color: {colour}">{mark} {self.number} {word}.</b> {html.escape(self.message)}</div>'
        )


def check(number: str, answer: Any = None) -> Result:
    """Check the answer to an exercise. Never raises for a wrong answer, so that Run All goes on.

    Args:
        number: of the exercise, such as "2.1".
        answer: what the exercise asks for: a number, a word, a function, a class.

    Raises:
        ValueError: there is no such exercise.
    """
    for part in PARTS:
        importlib.import_module(f"shapeloss.workshop.exercises.{part}")
    if number not in EXERCISES:
        raise ValueError(f"there is no exercise {number!r}; there are {', '.join(EXERCISES)}")
    asked, function = EXERCISES[number]
    unanswered = Result(number, False, f"not answered yet: {asked}")
    if answer is None or answer is Ellipsis:
        return unanswered
    try:
        return Result(number, True, function(answer))
    except Wrong as wrong:
        return Result(number, False, str(wrong))
    except NotImplementedError:  # the function is still the empty one
        return unanswered
    except Exception as error:  # whatever the student's code raises
        return Result(number, False, f"your code stopped with {type(error).__name__}: {error}")


def as_number(answer: Any, name: str) -> float:
    """The answer as one number."""
    try:
        return float(answer)
    except (TypeError, ValueError) as error:
        raise Wrong(f"{name} must be one number, got {answer!r}") from error
