"""The commands on what a replication left behind: `reanalyze`, `combine`, `verify`, `archive`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shapeloss.cli.app import app


@app.command()
def reanalyze(
    folders: Annotated[list[Path], typer.Argument(help="Folders of figures with scores; those below them count too.")],
    output: Annotated[Path | None, typer.Option(help="Keep what was made again in this folder.")] = None,
) -> None:
    """Make tables, verdicts and figures again from the scores that lie beside them, and compare. Trains nothing."""
    from shapeloss._resources import resource
    from shapeloss.replication.paper import read_paper
    from shapeloss.replication.reanalyze import reanalyze as again
    from shapeloss.replication.reanalyze import report, result_folders, unrecorded_folders

    paper = read_paper(resource("paper.yaml"))
    found = [folder for given in folders for folder in result_folders(given)]
    if not found:
        raise ValueError(f"{', '.join(map(str, folders))}: no evaluation.json there, which make reproduce writes")
    compared = [(folder, again(folder, paper, output and output / folder.name)) for folder in found]
    text, wrong = report(compared)
    print(text)
    for folder in [folder for given in folders for folder in unrecorded_folders(given)]:
        print(f"{folder}: has scores, but no evaluation.json: nothing was made again; make reproduce writes it")
    if wrong:
        raise ValueError(f"{wrong} file(s) are not what the scores give, each named above")


@app.command()
def combine(
    parts: Annotated[list[Path], typer.Argument(help="Folders of figures, each with the scores of some trainings.")],
    profile: Annotated[str, typer.Option(help="The profile whose trainings are wanted: a name or a file.")],
    output: Annotated[Path, typer.Option(help="Folder for scores, tables, verdicts and figures; may be one of these.")],
) -> None:
    """Put the evaluations of trainings that ran on several machines, or at several times, together into one."""
    from shapeloss._resources import resource
    from shapeloss.replication.combine import combine as combined
    from shapeloss.replication.paper import read_paper
    from shapeloss.replication.profile import load_experiment
    from shapeloss.replication.reanalyze import remake

    combined(load_experiment(profile), parts, output)
    remake(output, read_paper(resource("paper.yaml")), output)
    print(f"Written: {output}")


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="A results folder: results/<profile>.")],
    figures: Annotated[Path | None, typer.Option(help="Its figures: their scores are computed again.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data lie now; default where they were.")] = None,
) -> None:
    """Hash a results folder again, and name what does not belong together."""
    from shapeloss.replication.verify import verify as verified

    found = verified(results, figures, data)
    print(found.to_text())
    if found.problems:
        raise ValueError(f"{len(found.problems)} problem(s), each named above")


archive = typer.Typer(help="A results folder as an RO-Crate, for a journal or a reviewer.", no_args_is_help=True)
app.add_typer(archive, name="archive")


@archive.command("make")
def archive_make(
    profile: Annotated[str, typer.Argument(help="The profile: a name or a file.")],
    output: Annotated[Path, typer.Argument(help="The folder to make.")],
    results: Annotated[Path | None, typer.Option(help="The working folder; default results/<profile>.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Scores and table; default where make puts them.")] = None,
    licence: Annotated[
        str, typer.Option(help="URL of the licence of the archive.")
    ] = "https://spdx.org/licenses/Apache-2.0",
) -> None:
    """Copy trainings, predictions, scores, table and figures into one folder with their metadata and a rubric."""
    from shapeloss.replication.archive import write_archive
    from shapeloss.replication.profile import figures_folder, load_experiment

    name = load_experiment(profile).name
    made = figures or figures_folder(name)
    left_out = write_archive(profile, results or Path("results") / name, made, output, licence)
    print(f"Written: {output}")
    for text in left_out:
        print(f"not in it: {text}")


@archive.command("check")
def archive_check(
    folder: Annotated[Path, typer.Argument(help="The folder of an archive.")],
    data: Annotated[Path | None, typer.Option(help="The data, where the archive does not hold them.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the rubric with its ticks as JSON.")] = None,
) -> None:
    """Tick the rubric: do files, trainings, predictions, scores, tables and notebooks agree?"""
    from dataclasses import asdict

    from shapeloss._files import write_json
    from shapeloss.replication.archive import check_archive

    ticks = check_archive(folder, data)
    for tick in ticks:
        print(f"{tick.state:>14}  {tick.name}: {tick.detail}")
    if output:
        write_json(output, [asdict(tick) for tick in ticks])
    if wrong := [tick.name for tick in ticks if tick.state == "differs"]:
        raise ValueError(f"{folder}: {', '.join(wrong)} differ, as said above")
