"""The commands for reviewers: `evaluate`, `compare`, `audit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

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
    biomarkers: Annotated[
        bool,
        typer.Option(
            "--biomarkers", help="Size and shape too, and of a knee its biomarkers: biomarkers.csv, shape_errors.csv."
        ),
    ] = False,
    side: Annotated[str, typer.Option(help="Of the knees: left, right, or a CSV with the columns case and side.")] = "",
) -> None:
    """Score label maps against their truth, case by case. Nothing is resampled: another grid is an error."""
    from shapeloss.cli.terminal import show_markdown
    from shapeloss.data.names import parse_labels, parse_remap
    from shapeloss.metrics import METRICS
    from shapeloss.review.score_folders import score_folders, summary_markdown, write_scores

    if side and not biomarkers:
        raise ValueError("--side is that of the knees for --biomarkers, which is not given")
    merges = (parse_remap(remap) if remap else None), (parse_remap(remap_predictions) if remap_predictions else None)
    scores = score_folders(
        predictions,
        truth,
        parse_labels(labels) if labels else None,
        *merges,
        plane,
        metric or tuple(METRICS),
        jobs or os.cpu_count() or 1,
        edge=cast(Any, edge),  # checked there
    )
    paths = write_scores(scores, output, predictions, truth)
    show_markdown(summary_markdown(scores, predictions, truth, short=True))
    if biomarkers:
        from shapeloss.replication.scores import write_scores as write_table
        from shapeloss.review import score_biomarkers as shape

        rows = shape.measure_folders(predictions, truth, scores, *merges, side)
        errors = shape.measure_shapes(predictions, truth, scores, *merges)
        for name, table in (("shape_errors.csv", errors), ("biomarkers.csv", rows)):
            write_table(table, output / name)
            paths.insert(0, output / name)
        show_markdown(shape.biomarkers_markdown(rows))
        show_markdown(shape.shapes_markdown(errors))
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
    case_column: Annotated[str, typer.Option(help="Name of the column of cases. Default: case, ID, patient, …")] = "",
    margin: Annotated[float | None, typer.Option(help="Smallest difference that matters: tests equivalence.")] = None,
    keep_summaries: Annotated[
        bool, typer.Option("--keep-summaries", help="Rows named mean, std, … are cases.")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="One column per method, all of the score that --metric names.")
    ] = False,
    percent: Annotated[
        list[str] | None, typer.Option(help="A method or score that is in percent, repeatable: divided by 100.")
    ] = None,
    subgroup: Annotated[str, typer.Option(help="A column, such as sex, whose groups are compared too.")] = "",
    lower_is_better: Annotated[
        list[str] | None, typer.Option(help="A score, repeatable, where its name does not tell.")
    ] = None,
    higher_is_better: Annotated[list[str] | None, typer.Option(help="The same, of which more is better.")] = None,
) -> None:
    """Test the differences between methods on the same cases: paired tests, intervals, rankings, pictures."""
    from shapeloss.cli.terminal import show_markdown
    from shapeloss.review.compare_tables import compare_scores
    from shapeloss.review.score_tables import read_scores

    scores = read_scores(
        tables, metric or (), structure or None, case_column, keep_summaries, wide, percent or (), subgroup
    )
    page = compare_scores(scores, output, reference or None, margin, higher_is_better or (), lower_is_better or ())
    show_markdown(page)
    print(f"Written: {output}")
    if scores.problems:
        raise ValueError(f"{len(scores.problems)} problem(s), listed above; the other cases were compared")


class _AuditCommands(TyperGroup):
    """`audit number`, `audit table`, `audit paper`; without one of these words, what is given tells which is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            endings = {Path(argument).suffix.lower() for argument in args if not _follows_output(args, argument)}
            kind = "table" if ".csv" in endings else "paper" if endings & {".yaml", ".yml"} else "number"
            args = [kind, *args]
        return super().parse_args(ctx, args)


def _follows_output(args: list[str], argument: str) -> bool:
    """Whether an argument is the value of an option that names another file."""
    before = args[args.index(argument) - 1] if args.index(argument) else ""
    return before in ("--output", "--relation", "--correlations", "--trainings")


audit = typer.Typer(
    cls=_AuditCommands,
    help="Can reported numbers be true? Of one mean ± SD (number), of a CSV of many (table), of a whole paper (paper).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(audit, name="audit")

Low = Annotated[float | None, typer.Option(help="Least possible value. Default: none.")]
High = Annotated[float | None, typer.Option(help="Largest possible value. Default: none.")]
Step = Annotated[float | None, typer.Option(help="Grid of the values: 1 for integers.")]
ValuesPerCase = Annotated[int | None, typer.Option(help="3 if the SD is over three structures a case.")]
SdKind = Annotated[str | None, typer.Option(help="sample (n − 1, the default) or population (n).")]
Rounding = Annotated[str | None, typer.Option(help="nearest (the default) or truncated.")]
Unit = Annotated[str | None, typer.Option(help="What one value belongs to. Default: volume.")]
AnswerFile = Annotated[Path | None, typer.Option("--output", help="Where to write the answer to a file: .csv or .md.")]


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _answer(text: str, output: Path | None, problems: Sequence[str] = (), markdown: bool = False) -> None:
    """Show the answer or write it, then end with an error if a part of it could not be given."""
    from shapeloss._files import write_text
    from shapeloss.cli.terminal import show_markdown

    if output is None:
        (show_markdown if markdown else print)(text)
    else:
        write_text(output, text.rstrip("\n") + "\n")
        print(f"Written: {output}")
    if problems:
        raise ValueError(f"{len(problems)} problem(s), each stated in the answer; the others were audited")


@audit.command()
def number(
    values: Annotated[list[str], typer.Argument(help='MEAN SD N, or "MEAN ± SD" N, as printed.')],
    low: Low = None,
    high: High = None,
    step: Step = None,
    values_per_case: ValuesPerCase = None,
    sd_kind: SdKind = None,
    rounding: Rounding = None,
    unit: Unit = None,
    examples: Annotated[int, typer.Option(help="Samples to search for.")] = 2,
    versus: Annotated[str, typer.Option(help="MEAN SD of a second group: the correlation that p < 0.05 needs.")] = "",
    p: Annotated[float | None, typer.Option(help="The p-value claimed for --versus. Default: 0.05.")] = None,
    correlation: Annotated[
        float | None, typer.Option(help="Of the paired scores of --versus. Default: several, and measured ones.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="dice or boundary_dice_in_plane: what own trainings measured for it, and only that.")
    ] = "",
    output: AnswerFile = None,
) -> None:
    """Do values with such a mean and SD exist, and what do they imply?

    Options come first, and before a negative mean a lone --: shapeloss audit number --low -5 -- -0.5 0.2 10.
    """
    from shapeloss.review.audit.consistency import required_correlation
    from shapeloss.review.audit.false_claims import CORRELATIONS, false_claim
    from shapeloss.review.audit.summary import audit_summary, whole_number

    numbers = " ".join(values).replace("+/-", " ").replace("±", " ").split()
    if len(numbers) != 3:
        raise ValueError(f"give MEAN SD N, or one file, a .csv or a .yaml; got {' '.join(values)}")
    if p is not None and not versus:
        raise ValueError("--p: is the p-value of --versus, which is not given")
    if correlation is not None and not versus:
        raise ValueError("--correlation: is that with --versus, which is not given")
    mean, sd, n = numbers[0], numbers[1], whole_number(numbers[2])
    options = _given(
        low=low, high=high, step=step, values_per_case=values_per_case, sd_kind=sd_kind, rounding=rounding, unit=unit
    )
    try:
        text = audit_summary(mean, sd, n, **options, examples=examples).to_text()
    except (ArithmeticError, MemoryError) as error:
        raise ValueError(f"these numbers are too large or too fine to be checked ({error})") from error
    if metric:
        text += "\n" + _usual_sd(metric, float(mean), float(sd), high)
    if versus:
        other = versus.replace("±", " ").split()
        if len(other) != 2:
            raise ValueError(f"--versus must be MEAN SD, such as '0.27 0.05'; got {versus!r}")
        if sd_kind == "population":
            raise ValueError("--versus takes sample SDs; --sd-kind population does not go with it")
        groups = (mean, sd), (other[0], other[1])
        rule = options.get("rounding", "nearest")
        needed = required_correlation(*groups, n, 0.05 if p is None else p, rule)
        better: Any = "higher" if float(mean) >= float(other[0]) else "lower"
        if correlation is None:
            claim = false_claim(*groups, n, better, CORRELATIONS, _measured_correlations(metric), rule)
        else:
            claim = false_claim(*groups, n, better, [correlation], None, rule)
        text += "\n" + needed.to_text() + "\n" + claim.to_text()
    _answer(text, output)


def _measured_correlations(metric: str) -> Any:
    """The built-in correlations, of one metric or of all."""
    from shapeloss._resources import resource
    from shapeloss.review.audit.trainings import read_correlations

    measured = read_correlations(resource("correlations.csv"))
    return measured[measured["metric"] == metric] if metric else measured


def _usual_sd(metric: str, mean: float, sd: float, high: float | None) -> str:
    """A printed SD beside the one that own trainings have at such a mean; `high` tells percent from shares."""
    from shapeloss._resources import resource
    from shapeloss.review.audit.trainings import MEASURED, SdComparison, fit_sd, read_trainings

    if metric not in MEASURED:
        raise ValueError(f"--metric must be {' or '.join(MEASURED)}; got {metric!r}")
    whole = 1.0 if high is None else high
    if not 0 < mean / whole < 1 or sd <= 0:
        raise ValueError(
            f"--metric needs a mean between 0 and {whole:g} and an SD above 0; for percent give --high 100"
        )
    line = fit_sd(read_trainings(resource("trainings.csv")), metric)
    text = SdComparison(mean / whole, sd / whole, line).to_text()
    return f"From this project's data ({', '.join(line.data)}), {text}"


@audit.command()
def table(
    file: Annotated[Path, typer.Argument(help="A CSV with the columns mean, sd and n; one result a row.")],
    low: Low = None,
    high: High = None,
    step: Step = None,
    values_per_case: ValuesPerCase = None,
    sd_kind: SdKind = None,
    rounding: Rounding = None,
    unit: Unit = None,
    examples: Annotated[
        int | None, typer.Option(help="Samples to search for. Default: 2; for more than 1000 rows, 0.")
    ] = None,
    output: AnswerFile = None,
) -> None:
    """The same question for each row of a CSV, and its digits. Options hold where a row's cell is blank or missing."""
    from shapeloss.review.audit.digits import digit_remarks, remarks_text
    from shapeloss.review.audit.summary import audit_csv, given_columns, table_text

    options = _given(
        low=low, high=high, step=step, values_per_case=values_per_case, sd_kind=sd_kind, rounding=rounding, unit=unit
    )
    notes: list[str] = []
    answers = audit_csv(file, examples, options, notes)
    for note in notes:
        print(note, file=sys.stderr)
    remarks = remarks_text(digit_remarks(given_columns(answers)))
    if output and output.suffix == ".csv":  # its rows stay those of the table
        text = answers.to_csv(index=False, lineterminator="\n")
        print(remarks, end="\n" if remarks else "")
    else:
        text = "\n\n".join(part for part in (table_text(answers), remarks) if part)
    _answer(text, output, [problem for problem in answers["problem"] if problem])


@audit.command()
def paper(
    file: Annotated[
        Path | None, typer.Argument(help="YAML: sources, results and claims. Default: the built-in one of this paper.")
    ] = None,
    values_per_case: Annotated[int, typer.Option(help="Structures over which the SDs may be taken too.")] = 3,
    relation: Annotated[Path | None, typer.Option(help="Measured Dice and boundary Dice (CSV).")] = None,
    correlations: Annotated[
        Path | None, typer.Option(help="Measured correlations of paired scores (CSV). Default: the built-in ones.")
    ] = None,
    trainings: Annotated[
        Path | None, typer.Option(help="Per-case scores with a column seed (CSV). Default: the built-in trainings.")
    ] = None,
    output: AnswerFile = None,
) -> None:
    """What all reported numbers of a paper imply, alone and together."""
    from shapeloss._resources import resource
    from shapeloss.replication.paper import read_paper
    from shapeloss.review.audit.dice_vs_boundary import read_relation
    from shapeloss.review.audit.paper import audit_markdown, audit_paper
    from shapeloss.review.audit.trainings import read_correlations, read_trainings

    place = resource("paper.yaml") if file is None else file
    audited = audit_paper(
        read_paper(place),
        read_relation(relation, beside=place),
        values_per_case,
        correlations=read_correlations(correlations or resource("correlations.csv")),
        trainings=read_trainings(trainings or resource("trainings.csv")),
    )
    _answer(audit_markdown(audited), output, list(audited.problems), markdown=True)
