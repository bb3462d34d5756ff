"""The configuration of a replication: one frozen object, read from a profile.

Profiles are `reproduce/profiles/*.yaml`. Each field says what it is and, where the paper states one, the paper's value.
A key that is not listed here is an error.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, PrivateAttr, TypeAdapter, ValidationError, model_validator

from shapeloss._resources import find_profile
from shapeloss.data.names import portable_name_fault
from shapeloss.data.options import NotNegative, Section
from shapeloss.runs.options import RunOptions
from shapeloss.train import TrainingOptions


class Variation(Section):
    """Further trainings that differ from a profile's own in their seeds or options; what is left out stays as it is."""

    losses: tuple[str, ...] = ()
    """Rows of the table; none: all."""
    seeds: tuple[NotNegative, ...] = ()
    training: dict[str, Any] = Field(default={})
    """Keys of the section `training` with other values."""


class Experiment(RunOptions):
    """Everything that determines the numbers of a replication, except the code."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the profile, and of its folder below `results/`."""
    description: str
    """One line for captions: which data, how many cases."""
    study: str = ""
    """A profile beside this one with the same data and training, whose committed scores show how much the seed and more
    steps change."""
    variations: dict[str, Variation] = Field(default={})
    """By name: what a study trains beside the table, such as other seeds, more steps, another learning rate."""
    _variation: str = PrivateAttr("")

    @model_validator(mode="after")
    def _variations(self) -> Experiment:
        for name in self.variations:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or portable_name_fault(name):
                raise ValueError(
                    f"variations must have names of letters, digits, _ and -, and none that Windows keeps; got {name!r}"
                )
            self.variation(name)
        return self

    @property
    def runs_folder(self) -> str:
        """Where the trainings lie below the results."""
        return f"variations/{self._variation}" if self._variation else "runs"

    @property
    def notebooks(self) -> tuple[str, ...]:
        """The notebooks that a replication executes after its trainings or before them, by their names."""
        multi_task = len(self.seeds) > 1 and any(o.get("loss", row) == "mtl" for row, o in self.losses.items())
        return (
            "01_distance_maps",
            "03_evaluate",
            "04_error_maps",
            "05_audit",
            *(["06_study"] if self.variations else []),
            *(["07_multi_task"] if multi_task else []),
            "08_shape",
        )

    def variation(self, name: str) -> Experiment:
        """The experiment of one variation; itself for an empty name.

        Raises:
            ValueError: no such variation; a loss or an option of it that there is not.
        """
        if not name:
            return self
        if name not in self.variations:
            raise ValueError(f"no variation {name!r}; profile {self.name} has {', '.join(self.variations) or 'none'}")
        chosen, place = self.variations[name], f"variations.{name}"
        if absent := [loss for loss in chosen.losses if loss not in self.losses]:
            raise ValueError(f"{place}.losses: {', '.join(absent)} is no row of losses: {', '.join(self.losses)}")
        training = asdict(self.training)
        if absent := [key for key in chosen.training if key not in training]:
            raise ValueError(f"{place}.training has no key {', '.join(absent)}; known keys: {', '.join(training)}")
        try:
            changed = TypeAdapter(TrainingOptions).validate_python(training | chosen.training)
        except ValidationError as error:
            problems = "; ".join(_explain(problem, Experiment) for problem in error.errors())
            raise ValueError(f"{place}.training: {problems}") from None
        varied = self.model_copy(
            update={
                "losses": {loss: self.losses[loss] for loss in chosen.losses or self.losses},
                "seeds": chosen.seeds or self.seeds,
                "training": changed,
                "variations": {},
                "study": "",
            }
        )
        varied._variation = name
        return varied


def figures_folder(name: str) -> Path:
    """Where the figures of a profile go, below the project: those of the default lie above all others."""
    return Path("figures") if name == "phantom" else Path("figures") / name


def load_experiment(profile: str | Path) -> Experiment:
    """Read a profile. Its folder and the working folder are where custom losses are found, after installed packages.

    Args:
        profile: a file, or the name of a built-in profile, such as `smoke`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not YAML, an unknown key, or a value out of range; every problem is named, with its place.
    """
    path = find_profile(profile)
    for folder in (str(path.resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold keys and values, such as 'losses: [dpce, ce]'; got {type(values).__name__}")
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, Experiment)}" for problem in error.errors())
        raise ValueError(f"{path} has {error.error_count()} problem(s):\n{problems}") from None


def _explain(problem: Any, model: type[BaseModel]) -> str:
    """One line: the place of the problem, what was wrong, what was expected."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys(model, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}" if known else ""
        return f"{place}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{place}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    if isinstance(given, dict) and message.split(" ")[0] in given:  # a section's own check, which names the key
        return f"{place}.{message}" if place else message
    return f"{place}: {message} (got {given!r})" if place else message


def _keys(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a place of the configuration."""
    mapping = False
    for part in location:
        if mapping:  # a name that the profile chose
            mapping = False
            continue
        fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
        annotation: Any = getattr(fields.get(part), "annotation", None)
        mapping = getattr(annotation, "__origin__", None) is dict
        options = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
        model = options[-1 if mapping else 0] if options else annotation
    return list(getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {}))
