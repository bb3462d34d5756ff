"""What a paper reports and claims, as data: the reader of `reproduce/paper.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Probability = Annotated[float, Field(gt=0, lt=0.5)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Citation(_Section):
    """Where numbers come from."""

    citation: str
    status: str


class Reported(_Section):
    """One mean ± SD as a source prints it."""

    loss: str
    metric: str
    source: str
    printed: str = Field(pattern=r"^\d+(\.\d+)? ± \d+(\.\d+)?$")
    unit: float = Field(default=1.0, gt=0)
    """What one unit of `printed` is worth in the metric's own unit: 0.01 for percent of a Dice score."""
    n: int = Field(gt=0)
    bounds: tuple[float, float] = (0.0, 1.0)
    """Least and largest possible value, in the metric's own unit."""

    @property
    def mean(self) -> float:
        return self._scaled(0)

    @property
    def sd(self) -> float:
        return self._scaled(1)

    def _scaled(self, part: int) -> float:
        # to 12 digits, so that 28.83 % is 0.2883 and not 0.28830000000000006
        return float(f"{float(self.printed.split(' ± ')[part]) * self.unit:.12g}")


class Method(_Section):
    """One thing that the sources state of the method, and what they leave open."""

    item: str
    stated: str
    sources: tuple[str, ...]
    open: str


class Benchmark(_Section):
    """Differences between a paper's loss and a baseline that somebody else published, and what they may be."""

    citation: str
    metric: str
    loss: str
    baseline: str
    differences: tuple[float, ...] = Field(min_length=2)
    """Mean of `loss` less mean of `baseline`, in the metric's own unit, one for each data set."""
    trainings: int = Field(gt=0)
    """Of each loss, on each data set."""
    observed: str
    """What is known of it, as a sentence."""
    condition: str
    """Under which condition the differences are noise, so that "If …, these differences are noise" is a sentence."""


class Claim(_Section):
    """One claim, as a family of comparisons of `reference` with each loss of `against`."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    text: str
    """The source's words."""
    source: str
    statistic: str
    """Column of the per-case scores; `surface_error` for the error in mm at `landmarks`."""
    landmarks: tuple[str, ...] = ()
    """Patterns (`*notch*`) of the landmarks whose errors are averaged within a case."""
    better: Literal["higher", "lower"]
    reference: str
    against: tuple[str, ...] = Field(min_length=1)
    test: Literal["superiority", "noninferiority", "equivalence"]
    margin: float | None = Field(default=None, gt=0)
    """In the unit of the statistic; for non-inferiority and equivalence."""
    alpha: Probability
    reason: str
    """Why this test and this margin."""

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        if (self.margin is None) != (self.test == "superiority"):
            raise ValueError(f"{self.test} {'needs a' if self.margin is None else 'has no'} margin")
        if bool(self.landmarks) != (self.statistic == "surface_error"):
            raise ValueError("landmarks belong to the statistic surface_error, and it needs them")
        if self.reference in self.against or len(set(self.against)) != len(self.against):
            raise ValueError(f"against must name other losses than {self.reference!r}, each once; got {self.against}")
        return self


class Paper(_Section):
    """What a paper reports and claims."""

    title: str
    authors: str
    sources: dict[str, Citation]
    results: tuple[Reported, ...]
    method: tuple[Method, ...]
    landmark_radius_mm: float = Field(gt=0)
    """Surface errors at a landmark are means over the surface within this distance of it."""
    claims: tuple[Claim, ...]
    benchmarks: tuple[Benchmark, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Paper:
        named = [r.source for r in self.results] + [c.source for c in self.claims]
        named += [source for method in self.method for source in method.sources]
        if unknown := sorted(set(named) - set(self.sources)):
            raise ValueError(f"no such source: {', '.join(unknown)}; sources has {', '.join(self.sources)}")
        keys = [(r.source, r.metric, r.loss) for r in self.results]
        if twice := sorted({" ".join(key) for key in keys if keys.count(key) > 1}):
            raise ValueError(f"reported twice: {', '.join(twice)}")
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError(f"claims need distinct ids; got {ids}")
        return self

    def reported(self, source: str = "A") -> dict[str, dict[str, tuple[float, float]]]:
        """`{metric: {loss: (mean, SD)}}` of one source, as `shapeloss.stats.tables.summary_table` takes it."""
        if source not in self.sources:
            raise ValueError(f"source must be one of {', '.join(self.sources)}; got {source!r}")
        table: dict[str, dict[str, tuple[float, float]]] = {}
        for r in self.results:
            if r.source == source:
                table.setdefault(r.metric, {})[r.loss] = (r.mean, r.sd)
        return table

    def smallest_claimed(self, statistic: str) -> float:
        """The smallest reported difference that the claims of superiority about a statistic rest on.

        Raises:
            ValueError: there is no such claim with reported means.
        """
        differences = []
        for claim in self.claims:
            if claim.statistic == statistic and claim.test == "superiority":
                means = {loss: mean for loss, (mean, _) in self.reported(claim.source).get(statistic, {}).items()}
                both = [loss for loss in claim.against if loss in means and claim.reference in means]
                differences += [abs(means[claim.reference] - means[loss]) for loss in both]
        if not differences:
            raise ValueError(f"no claim of superiority about {statistic!r} has reported means")
        return float(f"{min(differences):.12g}")

    def results_table(self) -> pd.DataFrame:
        """The reported results as the audit takes them (`audit_table`, `compare_sources`), numbers as printed."""
        rows = []
        for r in self.results:
            mean, sd = r.printed.split(" ± ")
            low, high = (float(f"{bound / r.unit:.12g}") for bound in r.bounds)
            rows.append({
                "metric": r.metric, "loss": r.loss, "source": r.source, "mean": mean, "sd": sd, "n": r.n, "low": low,
                "high": high, "scale": r.unit,
            })  # fmt: skip
        return pd.DataFrame(rows)


def read_paper(path: str | Path) -> Paper:
    """Read and check a file like `reproduce/paper.yaml`.

    Raises:
        ValueError: all faults at once, an unknown key among them, each with its place.
    """
    try:
        return Paper.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path} is not a valid description of a paper:\n  " + "\n  ".join(faults)) from error
