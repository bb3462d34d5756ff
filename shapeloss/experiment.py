"""The configuration of a replication: one frozen object, read from a profile.

Profiles are `reproduce/profiles/*.yaml`. Each field says what it is and, where the paper states one, the paper's value.
A key that is not listed here is an error.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from shapeloss.losses import build_loss
from shapeloss.phantom import PhantomOptions
from shapeloss.vnet import VNetOptions

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveMm = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phantom(_Section):
    """The built-in data set: synthetic sagittal DESS knees."""

    subjects: Positive = 40
    """Knees to make (the paper: 40 volumes of the OAI)."""
    seed: int = 0
    """Which population of knees."""
    options: PhantomOptions = Field(default_factory=PhantomOptions)
    """Size, spacing, contrast, noise."""


class Split(_Section):
    """How many cases train, select the checkpoint, and test (the paper: 25 / 5 / 10)."""

    train: Positive = 25
    validation: Positive = 5
    test: Positive = 10
    seed: NotNegative = 0
    """The order in which the sorted cases are shuffled before they are dealt out."""
    test_cases: tuple[str, ...] = ()
    """Names of the test cases, where a data set has an official test set; otherwise they are dealt out too."""

    @model_validator(mode="after")
    def _as_many_as_said(self) -> Split:
        if self.test_cases and len(set(self.test_cases)) != self.test:
            raise ValueError(f"test_cases has {len(set(self.test_cases))} names, but test = {self.test}")
        return self


class DataSource(_Section):
    """Where the cases come from: what `shapeloss import <kind> … --profile` takes from the profile."""

    kind: Literal["oaizib", "oai", "decathlon", "folder", "pairs"]
    """The command below `shapeloss import`."""
    task: str = ""
    """Decathlon: the task, such as Task04_Hippocampus."""
    cases: str = ""
    """OAIZIB-CM: numbers of cases, such as 1,5,400-404; empty: the 40 of its own rule."""
    labels: dict[Positive, str] = Field(default_factory=dict)
    """Labels to keep, with the names of their structures; they become 1 … K − 1 in this order. Empty: the source's."""
    remap: dict[NotNegative, NotNegative] = Field(default_factory=dict)
    """Old label → new label, merged before: {7: 1} counts a lesion in the femur as femur."""

    def command(self, profile: str) -> str:
        """What to type."""
        inputs = {"decathlon": [self.task or "<task>"], "folder": ["<folder>"], "pairs": ["<images>", "<masks>"]}
        arguments = inputs.get(self.kind, ["<DICOM folder>"] if self.kind == "oai" else [])
        return " ".join(["shapeloss import", self.kind, *arguments, "<new folder>", "--profile", profile])


class Data(_Section):
    """Which cases, and how they are prepared."""

    phantom: Phantom | None = None
    """Make the built-in phantom; otherwise a folder in Decathlon or nnU-Net layout is read (`DATA=`)."""
    source: DataSource | None = None
    """How that folder is made by `shapeloss import`."""
    split: Split = Split()
    oai: bool = False
    """The cases are DESS knees of the Osteoarthritis Initiative: only on them is a claim of the paper "reproduced"."""
    slice_axis: Literal[0, 1, 2] | None = None
    """Axis across the slices in RAS: 0 for sagittal, 1 for coronal, 2 for axial ones. In-plane rotations and boundaries
    lie in the slices, and figures show them. None: the axis of the coarsest voxel side, as `shapeloss evaluate` has
    it; of equal ones the first."""
    spacing: tuple[PositiveMm, PositiveMm, PositiveMm] | None = None
    """Resample volumes to voxels of this size in mm along X, Y, Z (RAS); predictions return to each scan's own grid."""
    size: tuple[Positive, Positive, Positive] | None = None
    """Cut or pad volumes to this many voxels about their centre, after resampling."""
    mirror_to: Literal["left", "right"] | None = None
    """Mirror knees of the other side, as `import.json` has it, to this one; predictions are mirrored back."""
    intensity: Literal["zscore", "percentile"] = "zscore"
    """Per volume: zero mean and unit SD, or the 1st to 99th percentile to [0, 1] (the paper states none)."""


class Network(_Section):
    """Sizes of the V-Net (the paper: "resembling a V-Net")."""

    options: VNetOptions = Field(default_factory=VNetOptions)


class Training(_Section):
    """The paper: Adam, learning rate 1e-4, one volume a step, random in-plane rotations; the rest is left open."""

    steps: Positive = 600
    """Optimiser steps, the same for every loss."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of Adam (the paper: 1e-4)."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """Linear warm-up over a tenth of the steps, then a cosine to zero; or the paper's constant rate."""
    rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    """Largest angle of the random in-plane rotation (the paper does not say)."""
    patch_size: tuple[Positive, Positive, Positive] | None = None
    """Random patches of this size instead of whole volumes; prediction then slides a window of this size."""
    validate_every: Positive = 50
    """Steps between two validations; the checkpoint with the best mean Dice of the validation cases is tested."""
    checkpoint_every: Positive = 50
    """Steps between two checkpoints, from which a killed run goes on."""
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    """bfloat16 autocast where the processor has it (auto), always, or never."""
    activation_checkpointing: bool = False
    """Recompute each stage's activations in the backward pass: less memory, about a third more time."""


class Postprocessing(_Section):
    """The paper (secondary source): 3D morphological closing, then the largest connected components."""

    closing_voxels: NotNegative = 1
    """Radius of the closing of each structure, in steps of the 6-connected neighbourhood; 0 for none."""
    largest_component: bool = True
    """Keep each structure's largest 26-connected component."""


class Experiment(_Section):
    """Everything that determines the numbers of a replication, except the code."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the profile, and of its folder below `results/`."""
    description: str
    """One line for captions: which data, how many cases."""
    longer: str = ""
    """A profile beside this one with the same data and more steps: its committed scores show how far this is from
    convergence."""
    data: Data = Data()
    losses: dict[str, dict[str, Any]] = Field(min_length=1)
    """Rows of the table, with the options of each row's loss; the first is the reference. A row's name is a loss's key
    or `package.module:Class`, or else its option `loss` is: `dpce_mm: {loss: dpce, reading: mm}`."""
    seeds: tuple[NotNegative, ...] = Field(default=(0,), min_length=1)
    """One training per loss and seed."""
    network: Network = Network()
    training: Training = Training()
    postprocessing: Postprocessing = Postprocessing()

    @model_validator(mode="before")
    @classmethod
    def _losses_without_options(cls, values: Any) -> Any:
        """A list of losses, or a loss without options, means the default options."""
        if isinstance(values, dict):
            losses = values.get("losses")
            if isinstance(losses, list):
                values = values | {"losses": {key: {} for key in losses}}
            elif isinstance(losses, dict):
                values = values | {"losses": {key: options or {} for key, options in losses.items()}}
        return values

    @model_validator(mode="after")
    def _distinct(self) -> Experiment:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ from each other; got {self.seeds}")
        if self.data.phantom and self.data.phantom.subjects < self.cases:
            raise ValueError(f"phantom.subjects = {self.data.phantom.subjects}, but the split needs {self.cases} cases")
        return self

    @property
    def cases(self) -> int:
        """How many cases the split deals out."""
        return self.data.split.train + self.data.split.validation + self.data.split.test

    def build_loss(self, row: str, num_classes: int, spacing: Sequence[float] | None = None) -> nn.Module:
        """The loss of one row of the table.

        Raises:
            ValueError: no such loss, or an option that it does not have.
        """
        options = dict(self.losses[row])
        return build_loss(options.pop("loss", row), num_classes=num_classes, spacing=spacing, **options)

    def section(self, *names: str) -> str:
        """Some sections as canonical JSON: what a step of the workflow depends on."""
        return json.dumps(self.model_dump(mode="json", include=set(names)), sort_keys=True)


def load_experiment(profile: str | Path) -> Experiment:
    """Read a profile. Its folder and the working folder are where custom losses are found, after installed packages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not YAML, an unknown key, or a value out of range; every problem is named, with its place.
    """
    path = Path(profile)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"there is no profile {path}; profiles in {path.parent}: {known}")
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
    return f"{place}: {message} (got {problem['input']!r})" if place else message


def _keys(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a place of the configuration."""
    for part in location:
        fields = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
        annotation: Any = getattr(fields.get(part), "annotation", None)
        options = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
        model = options[0] if options else annotation
    return list(getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {}))
