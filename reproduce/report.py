"""Everything that a replication found, as one page that needs nothing else: `figures/report.html`.

Tables, verdicts, figures, the audit, deviations, provenance and every score, in one file that opens without a network.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from shapeloss._files import write_text
from shapeloss.data.manifest import Manifest, read_manifest
from shapeloss.metrics import METRICS
from shapeloss.replication.profile import Experiment, load_experiment
from shapeloss.replication.scores import provenance_line, read_runs, read_scores

ROOT = Path(__file__).resolve().parents[1]
WIDEST = 1800  # pixels of an embedded figure
LARGEST = 7_000_000  # bytes of the page of surfaces that is embedded: with all else the report stays below 10 MB

FIGURES = {
    "figure1": "The paper's figure 1. Top: a training mask, the distance map of each compartment, and φ. Bottom: the "
    "absolute distance of each loss's predicted surface from the truth, for the test volume whose boundary Dice is the "
    "median.",
    "population": "The errors of all test volumes on one common surface. Top: the mean of each loss. Bottom: the "
    "difference from cross-entropy, outlined where it can be told from zero.",
    "scores": "Every test volume under every loss. Losses are compared within volumes, so the lines matter, not the "
    "spread of the dots.",
    "claims": "The paper's claims, one panel each: the effect of each comparison with the interval that inverts its "
    "test. Right of the line favours the claim; grey is the margin.",
    "training": "The learning curves. They are flat at their end because the learning rate has fallen to zero; the "
    "caption of the results table says what more steps give.",
    "predictions": "The central slice of the same volume: the truth in white, each prediction in its loss's colour.",
    "variants": "Variants of φ that the paper's text allows, one scale for each unit, and how much weight each puts "
    "near the boundary.",
    "audit_samples": "Samples that would give the reported mean and standard deviation.",
    "audit_claims": "The probability that a claimed difference is none, for each correlation between the paired scores "
    "that it may rest on; below, the correlations that were measured between two losses.",
    "audit_relation": "Dice and boundary Dice of the same surfaces on phantom knees at OAI DESS resolution, and what "
    "the sources report.",
}
STUDY_FIGURES = {
    "differences": "Every row less plain cross-entropy, before the noise of training (grey).",
    "budgets": "What more steps change.",
    "rates": "Every loss at each learning rate; ringed is the one that the validation cases choose.",
}
SCORES = {
    "boundary_dice_in_plane": "Boundary Dice", "boundary_dice_3d": "Boundary Dice, 3D", "dice": "Dice",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure inside the page."""

    data: str
    width: int
    height: int
    caption: str


def markdown(text: str, shift: int = 1) -> str:
    """Markdown as HTML: headings go down by so many levels, wide tables scroll, HTML in the text is shown as text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + shift)}"
    parser.add_render_rule("table_open", _open_table)
    parser.add_render_rule("table_close", _close_table)
    return str(parser.renderer.render(tokens, parser.options, {}))


def _open_table(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return '<div class="scroll"><table>\n'


def _close_table(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return "</table></div>\n"


def picture(path: Path, caption: str) -> Picture:
    """A PNG as a smaller WebP inside a data address."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((WIDEST, 10 * WIDEST))
        packed = io.BytesIO()
        image.save(packed, "WEBP", quality=88, method=4)
        data = base64.b64encode(packed.getvalue()).decode()
        return Picture(f"data:image/webp;base64,{data}", image.width, image.height, caption)


def without_title(text: str) -> str:
    """A page without its first heading."""
    first, _, rest = text.partition("\n")
    return rest.lstrip("\n") if first.startswith("# ") else text


def parts(runs: list[dict[str, Any]], manifest: Manifest, results: Path, figures: Path) -> list[dict[str, str]]:
    """The parts of the page: name, the commits that made it, and why it is stale, if it is.

    Table and claims say in their text which data and commits they come from, executed notebooks in their metadata.
    """

    def executed(name: str) -> str:
        path = results / "notebooks" / f"{name}.ipynb"
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"] if path.is_file() else {}
        return str(metadata.get("shapeloss", {}).get("commit", "unknown"))

    trained = sorted({run["commit"] for run in runs})
    rows = [{"name": "trainings", "commit": ", ".join(trained), "stale": ""}]
    if other := [f"{run['loss']}, seed {run['seed']}" for run in runs if run["data"] != manifest.hash]:
        rows[0]["stale"] = f"trained on other data: {'; '.join(other)}"
    for name in ("table1.md", "table_exact.md", "claims.md"):
        if not (figures / name).is_file():  # data without exact surfaces
            continue
        text = (figures / name).read_text(encoding="utf-8")
        made = re.search(r"Commit: ([^;.\s]+)(?:; trained at ([^.]+))?\.", text)
        stale = "" if f"(hash {manifest.hash})" in text else "made from other data"
        if made and (made[2] or made[1]) != ", ".join(trained):
            stale = stale or "made from other trainings"
        rows.append({"name": name, "commit": made[1] if made else "unknown", "stale": stale})
    for name in ("01_distance_maps", "03_evaluate", "04_error_maps", "05_audit"):
        rows.append({"name": f"notebook {name}", "commit": executed(name), "stale": ""})
    return rows


def study_folder(experiment: Experiment, figures: Path) -> Path | None:
    """Where the study lies that a page shows: its own, or the committed one of the same data and network."""
    if (figures / "study.md").is_file():
        return figures
    committed, profile = ROOT / "figures" / "study", ROOT / "reproduce" / "profiles" / "study.yaml"
    if not (committed / "study.md").is_file() or not profile.is_file():
        return None
    same = load_experiment(profile).canonical_json("data", "network") == experiment.canonical_json("data", "network")
    return committed if same else None


def pictures(folder: Path | None, captions: dict[str, str]) -> dict[str, Picture]:
    """Those of the figures that there are."""
    if folder is None:
        return {}
    there = {name: text for name, text in captions.items() if (folder / f"{name}.png").is_file()}
    return {name: picture(folder / f"{name}.png", text) for name, text in there.items()}


def surfaces(figures: Path) -> str:
    """The page that turns the surfaces, for a frame; empty where there is none, or one too large."""
    page = figures / "surfaces.html"
    return page.read_text(encoding="utf-8") if page.is_file() and page.stat().st_size < LARGEST else ""


def build(experiment: Experiment, manifest: Manifest, results: Path, figures: Path) -> str:
    """The page."""

    def read(name: str) -> str:
        return (figures / name).read_text(encoding="utf-8")

    runs = read_runs(experiment, results)
    made = parts(runs, manifest, results, figures)
    scores = read_scores(figures)
    columns = {name: heading for name, heading in SCORES.items() if name in scores.columns}
    study = study_folder(experiment, figures)
    claims = without_title(read("claims.md"))
    verdicts, _, detail = claims.partition("\n## ")
    answers, _, audited = without_title(read("audit.md")).partition("## Each result")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        experiment=experiment,
        manifest=manifest,
        provenance=provenance_line(experiment, manifest, results),
        table=markdown(read("table1.md")),
        exact=markdown(read("table_exact.md")) if (figures / "table_exact.md").is_file() else "",
        verdicts=markdown(verdicts),
        claims=markdown("## " + detail),
        audit=markdown(answers),
        audited=markdown("## Each result" + audited),
        deviations=markdown(without_title((ROOT / "docs" / "deviations.md").read_text(encoding="utf-8"))),
        surfaces=surfaces(figures),
        population=markdown(without_title(read("population.md"))) if (figures / "population.md").is_file() else "",
        study=markdown((study / "study.md").read_text(encoding="utf-8")) if study else "",
        pictures=pictures(figures, FIGURES) | pictures(study, STUDY_FIGURES),
        columns=columns,
        directions={name: METRICS[name].direction for name in columns},
        scores=scores.to_dict("records"),
        structures=list(dict.fromkeys(scores["structure"])),
        runs=runs,
        parts=made,
        commits=sorted({name for part in made for name in part["commit"].split(", ")}),
        profile=experiment.model_dump_json(indent=2),
    )  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.profile)
    manifest = read_manifest(arguments.results / "cases.json")
    page = build(experiment, manifest, arguments.results, arguments.figures)
    write_text(arguments.figures / "report.html", page)


if __name__ == "__main__":
    main()
