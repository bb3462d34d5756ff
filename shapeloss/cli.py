"""The commands: `shapeloss --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from shapeloss import __version__
from shapeloss.sources.commands import app as import_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(import_app, name="import")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"shapeloss {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Distance-penalised losses for 3D medical image segmentation."""


Profile = Annotated[Path, typer.Option(help="A profile, such as reproduce/profiles/phantom.yaml.")]


@app.command()
def phantom(folder: Annotated[Path, typer.Argument(help="Where to write it.")], profile: Profile) -> None:
    """Make the built-in data set of synthetic knees, in Decathlon layout."""
    from shapeloss.experiment import load_experiment
    from shapeloss.phantom import write_dataset

    options = load_experiment(profile).data.phantom
    if options is None:
        raise ValueError(f"{profile} has no section data.phantom")
    write_dataset(folder, options.subjects, options.options, options.seed)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A data set in Decathlon or nnU-Net layout.")],
    profile: Profile,
    output: Annotated[Path, typer.Option(help="Where to write the list of checked cases.")] = Path("cases.json"),
) -> None:
    """Check a data set for everything that would spoil a run, and deal its cases out."""
    from shapeloss.dataset import prepare
    from shapeloss.experiment import load_experiment
    from shapeloss.listing import find_cases

    manifest = prepare(load_experiment(profile), folder, output)
    notes: list[str] = []
    find_cases(folder, notes=notes)
    print("".join(f"{note}\n" for note in notes), end="")
    print(f"{len(manifest.cases)} cases, classes {', '.join(manifest.classes.values())}: no problem found")
    print(f"Slices: {manifest.slice_rule}")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finished training: results/<profile>/runs/<loss>/seed<n>.")],
    images: Annotated[Path, typer.Argument(help="An image (NIfTI, NRRD, MetaImage), or a folder of them.")],
    output: Annotated[Path, typer.Argument(help="Folder for the label maps.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Make label maps again that are there.")] = False,
    side: Annotated[str, typer.Option(help="left or right, if the run mirrors knees and no import.json says it.")] = "",
    any_spacing: Annotated[
        bool, typer.Option("--any-spacing", help="Voxels more than twice as fine or coarse as in the training, too.")
    ] = False,
) -> None:
    """Segment new images with a trained network; each label map lies on its image's own grid."""
    from shapeloss.inference import load_run, predict_files

    if side not in ("", "left", "right"):
        raise ValueError(f"--side is left or right; got {side!r}")
    trained = load_run(run)
    notes: list[str] = []
    written, problems = predict_files(
        trained, images, output, device, overwrite, side, notes=notes, any_spacing=any_spacing
    )
    names = ", ".join(f"{label} {name}" for label, name in trained.classes.items())
    print("\n".join([f"{len(written)} label maps written in {output}: {names}", *notes]))
    if problems:
        raise ValueError(
            f"{len(problems)} problem(s); the other images are done" + "".join(f"\n  - {p}" for p in problems)
        )


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="A folder of label maps (NIfTI, NRRD, MetaImage), or one file.")],
    truth: Annotated[Path, typer.Argument(help="The same, with the same names.")],
    output: Annotated[Path, typer.Option(help="Folder for per_case.csv, summary.csv, summary.md.")] = Path("scores"),
    labels: Annotated[
        str, typer.Option(help="Structures to score: 1:femur,2:tibia. Default: those of dataset.json, or all.")
    ] = "",
    remap: Annotated[str, typer.Option(help="Labels to merge first, on both sides, such as 7:1,8:3.")] = "",
    remap_predictions: Annotated[str, typer.Option(help="More of it for the predictions alone.")] = "",
    plane: Annotated[str, typer.Option(help="Plane of the slices: auto, sagittal, coronal, axial.")] = "auto",
    metric: Annotated[list[str] | None, typer.Option(help="A metric, repeatable. Default: all.")] = None,
    edge: Annotated[
        str, typer.Option(help="Is the edge of the field of view a boundary? open: no; closed: yes, as elsewhere.")
    ] = "open",
    jobs: Annotated[int | None, typer.Option(min=1, help="Cases to score at a time. Default: one per core.")] = None,
) -> None:
    """Score label maps against their truth, case by case. Nothing is resampled: another grid is an error."""
    from shapeloss.metrics import METRICS
    from shapeloss.scoring import score_folders, summary_markdown, write_scores
    from shapeloss.terminal import show_markdown
    from shapeloss.volumes import parse_labels, parse_remap

    scores = score_folders(
        predictions,
        truth,
        parse_labels(labels) if labels else None,
        parse_remap(remap) if remap else None,
        parse_remap(remap_predictions) if remap_predictions else None,
        plane,
        metric or tuple(METRICS),
        jobs or os.cpu_count() or 1,
        edge=cast(Any, edge),  # checked there
    )
    paths = write_scores(scores, output, predictions, truth)
    show_markdown(summary_markdown(scores, predictions, truth, short=True))
    print(f"Written: {', '.join(map(str, paths))}")
    if scores.problems:
        raise ValueError(
            f"{len(scores.problems)} problem(s), listed above and in {paths[-1]}; the other cases were scored"
        )


@app.command()
def compare(
    tables: Annotated[list[str], typer.Argument(help="Per-case scores (CSV); name=file.csv names the method.")],
    output: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("comparison"),
    metric: Annotated[list[str] | None, typer.Option(help="Score column, repeatable.")] = None,
    reference: Annotated[str, typer.Option(help="The method to compare with. Default: the first.")] = "",
    structure: Annotated[str, typer.Option(help="Which rows of a column `structure`. Default: mean.")] = "",
    case_column: Annotated[str, typer.Option(help="Name of the column of cases.")] = "case",
    margin: Annotated[float | None, typer.Option(help="Smallest difference that matters: tests equivalence.")] = None,
    keep_summaries: Annotated[
        bool, typer.Option("--keep-summaries", help="Rows named mean, std, … are cases.")
    ] = False,
) -> None:
    """Test the differences between methods on the same cases: paired tests, intervals, pictures."""
    from shapeloss.comparison import compare_scores, read_scores
    from shapeloss.terminal import show_markdown

    scores = read_scores(tables, metric or (), structure or None, case_column, keep_summaries)
    show_markdown(compare_scores(scores, output, reference or None, margin))
    print(f"Written: {output}")
    if scores.problems:
        raise ValueError(f"{len(scores.problems)} problem(s), listed above; the other cases were compared")


@app.command()
def audit(
    values: Annotated[
        list[str],
        typer.Argument(
            help='MEAN SD N, or "MEAN ± SD" N, as printed; or one file: a CSV of many rows, a YAML of a paper.'
        ),
    ],
    low: Annotated[float | None, typer.Option(help="Least possible value. Default: none.")] = None,
    high: Annotated[float | None, typer.Option(help="Largest possible value. Default: none.")] = None,
    step: Annotated[float | None, typer.Option(help="Grid of the values: 1 for integers.")] = None,
    values_per_case: Annotated[int | None, typer.Option(help="3 if the SD is over three structures a case.")] = None,
    sd_kind: Annotated[str | None, typer.Option(help="sample (n − 1, the default) or population (n).")] = None,
    rounding: Annotated[str | None, typer.Option(help="nearest (the default) or truncated.")] = None,
    unit: Annotated[str | None, typer.Option(help="What one value belongs to. Default: volume.")] = None,
    examples: Annotated[
        int | None, typer.Option(help="Samples to search for. Default: 2; for a CSV of more than 1000 rows, 0.")
    ] = None,
    versus: Annotated[str, typer.Option(help="MEAN SD of a second group: the correlation that p < 0.05 needs.")] = "",
    p: Annotated[float | None, typer.Option(help="The p-value claimed for --versus. Default: 0.05.")] = None,
    relation: Annotated[Path | None, typer.Option(help="Measured Dice and boundary Dice (CSV), for a paper.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write the answer to a file: .csv or .md.")] = None,
) -> None:
    """Can these reported numbers be true? Whether values with such a mean and SD exist, and what they imply.

    Options come first, and before a negative mean a lone --: shapeloss audit --low -5 -- -0.5 0.2 10. For a CSV,
    options hold where a row's cell is blank or its column missing.
    """
    from shapeloss import audit as questions
    from shapeloss.files import write_text
    from shapeloss.paper import read_paper
    from shapeloss.paper_audit import audit_markdown, audit_paper
    from shapeloss.relation import read_relation
    from shapeloss.terminal import show_markdown

    options: dict[str, Any] = {
        "low": low, "high": high, "step": step, "values_per_case": values_per_case, "sd_kind": sd_kind,
        "rounding": rounding, "unit": unit,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    given = set(options) | {
        name
        for name, value in (("examples", examples), ("versus", versus or None), ("p", p), ("relation", relation))
        if value is not None
    }

    def refuse(names: set[str], why: str) -> None:
        if wrong := sorted(given & names):
            raise ValueError(f"{', '.join('--' + name.replace('_', '-') for name in wrong)}: {why}")

    problems: list[str] = []
    numbers = " ".join(values).replace("+/-", " ").replace("±", " ").split()
    kind = Path(values[0]).suffix.lower() if len(values) == 1 else ""
    if kind == ".csv":
        refuse({"versus", "p", "relation"}, "is no option for a CSV of many rows")
        notes: list[str] = []
        table = questions.audit_csv(values[0], examples, options, notes)
        for note in notes:
            print(note, file=sys.stderr)
        text = table.to_csv(index=False) if output and output.suffix == ".csv" else questions.table_text(table)
        problems = [problem for problem in table["problem"] if problem]
    elif kind in (".yaml", ".yml"):
        refuse(
            given - {"values_per_case", "relation"},
            "is no option for a paper, whose file says it, or which leaves it open",
        )
        paper = audit_paper(
            read_paper(values[0]),
            read_relation(relation, beside=values[0]),
            3 if values_per_case is None else values_per_case,
        )
        text = audit_markdown(paper)
        problems = list(paper.problems)
    elif len(numbers) == 3:
        refuse({"relation"}, "is an option for the YAML of a paper")
        refuse(set() if versus else {"p"}, "is the p-value of --versus, which is not given")
        mean, sd, n = numbers[0], numbers[1], questions.whole_number(numbers[2])
        try:
            answer = questions.audit_summary(mean, sd, n, **options, examples=2 if examples is None else examples)
        except (ArithmeticError, MemoryError) as error:
            raise ValueError(f"these numbers are too large or too fine to be checked ({error})") from error
        text = answer.to_text()
        if versus:
            other = versus.replace("±", " ").split()
            if len(other) != 2:
                raise ValueError(f"--versus must be MEAN SD, such as '0.27 0.05'; got {versus!r}")
            if sd_kind == "population":
                raise ValueError("--versus takes sample SDs; --sd-kind population does not go with it")
            groups = (mean, sd), (other[0], other[1])
            alpha = 0.05 if p is None else p
            text += (
                "\n" + questions.required_correlation(*groups, n, alpha, options.get("rounding", "nearest")).to_text()
            )
    else:
        raise ValueError(f"give MEAN SD N, or one file, a .csv or a .yaml; got {' '.join(values)}")
    if output is None:
        (show_markdown if kind in (".yaml", ".yml") else print)(text)
    else:
        write_text(output, text.rstrip("\n") + "\n")
        print(f"Written: {output}")
    if problems:
        raise ValueError(f"{len(problems)} problem(s), each stated in the answer; the others were audited")


def main() -> None:
    """Run a command; a user's mistake ends in one message, not in a traceback."""
    try:
        app(standalone_mode=True)
    except OSError as error:
        from shapeloss.files import explain

        if error.errno is None:  # raised here, with its own words and the remedy
            sys.exit(f"error: {error}")
        place = Path(error.filename).parent if isinstance(error.filename, str) else Path.cwd()
        sys.exit(f"error: {explain(error, place, goes_on=False)}")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
