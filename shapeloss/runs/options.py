"""What trainings depend on besides code and data: the sections of a profile that a run reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator
from torch import nn

from shapeloss._files import WINDOWS
from shapeloss.data.names import portable_name_fault
from shapeloss.data.options import Data, NotNegative, Section
from shapeloss.losses import build_loss
from shapeloss.predict import Postprocessing
from shapeloss.train import TrainingOptions
from shapeloss.vnet import VNetOptions


class Network(Section):
    """Sizes of the V-Net (the paper: "resembling a V-Net")."""

    options: VNetOptions = Field(default_factory=VNetOptions)


class RunOptions(Section):
    """Everything that determines the numbers of some trainings, except the code."""

    data: Data = Data()
    losses: dict[str, dict[str, Any]] = Field(min_length=1)
    """Rows of the table, with the options of each row's loss; the first is the reference. A row's name is a loss's key
    or `package.module:Class`, or else its option `loss` is: `dpce_mm: {loss: dpce, variant: mm}`."""
    seeds: tuple[NotNegative, ...] = Field(default=(0,), min_length=1)
    """One training per loss and seed."""
    network: Network = Network()
    training: TrainingOptions = TrainingOptions()
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
    def _distinct(self) -> RunOptions:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ from each other; got {self.seeds}")
        rows = list(self.losses)
        for number, row in enumerate(rows):
            # a class has a colon, which only Windows forbids in the name of a folder
            name = row if WINDOWS else row.replace(":", "")
            if fault := portable_name_fault(name, rows[:number]):
                raise ValueError(
                    f"losses: the row {row!r} {fault}, and a folder is named by it; give it another name and its loss "
                    f"as an option: my_loss: {{loss: {row}}}"
                )
        split = self.data.split
        if self.data.phantom and self.data.phantom.subjects < split.cases:
            raise ValueError(
                f"phantom.subjects = {self.data.phantom.subjects}, but the split needs {split.cases} cases"
            )
        return self

    def build_loss(self, row: str, num_classes: int, spacing: Sequence[float] | None = None) -> nn.Module:
        """The loss of one row of the table.

        Raises:
            ValueError: no such loss, or an option that it does not have.
        """
        options = dict(self.losses[row])
        return build_loss(options.pop("loss", row), num_classes=num_classes, spacing=spacing, **options)

    def canonical_json(self, *sections: str) -> str:
        """Some sections as JSON, equal for equal content: what a step of the workflow depends on."""
        return json.dumps(self.model_dump(mode="json", include=set(sections)), sort_keys=True)
