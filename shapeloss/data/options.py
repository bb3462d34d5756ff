"""Which cases a data set has, and how they are prepared: the section `data` of a profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shapeloss.phantom.contrast import PhantomOptions

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveMm = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of a profile: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Phantom(Section):
    """The built-in data set: synthetic sagittal DESS knees."""

    subjects: Positive = 40
    """Knees to make (the paper: 40 volumes of the OAI)."""
    seed: int = 0
    """Which population of knees."""
    options: PhantomOptions = Field(default_factory=PhantomOptions)
    """Size, spacing, contrast, noise."""


class Split(Section):
    """How many cases train, select the checkpoint, and test (the paper: 25 / 5 / 10)."""

    train: Positive = 25
    validation: Positive = 5
    test: Positive = 10
    seed: NotNegative = 0
    """The order in which the sorted cases are shuffled before they are assigned."""
    test_cases: tuple[str, ...] = ()
    """Names of the test cases, where a data set has an official test set; otherwise they are assigned too."""

    @property
    def cases(self) -> int:
        """How many cases the split needs."""
        return self.train + self.validation + self.test

    @model_validator(mode="after")
    def _as_many_as_said(self) -> Split:
        if self.test_cases and len(set(self.test_cases)) != self.test:
            raise ValueError(f"test_cases has {len(set(self.test_cases))} names, but test = {self.test}")
        return self


class DataSource(Section):
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


class Data(Section):
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
