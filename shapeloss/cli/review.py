"""The commands for reviewers: `evaluate`, `compare`, `audit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from shapeloss.cli.app import app


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
    from shapeloss.cli.terminal import show_markdown
    from shapeloss.data.names import parse_labels, parse_remap
    from shapeloss.metrics import METRICS
    from shapeloss.review.score_folders import score_folders, summary_markdown, write_scores

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
    from shapeloss.cli.terminal import show_markdown
    from shapeloss.review.compare_tables import compare_scores
    from shapeloss.review.score_tables import read_scores

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
    from shapeloss._files import write_text
    from shapeloss.cli.terminal import show_markdown
    from shapeloss.replication.paper import read_paper
    from shapeloss.review.audit import summary as questions
    from shapeloss.review.audit.consistency import required_correlation
    from shapeloss.review.audit.dice_vs_boundary import read_relation
    from shapeloss.review.audit.paper import audit_markdown, audit_paper

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
            text += "\n" + required_correlation(*groups, n, alpha, options.get("rounding", "nearest")).to_text()
    else:
        raise ValueError(f"give MEAN SD N, or one file, a .csv or a .yaml; got {' '.join(values)}")
    if output is None:
        (show_markdown if kind in (".yaml", ".yml") else print)(text)
    else:
        write_text(output, text.rstrip("\n") + "\n")
        print(f"Written: {output}")
    if problems:
        raise ValueError(f"{len(problems)} problem(s), each stated in the answer; the others were audited")
