"""The commands: `shapeloss --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shapeloss import __version__
from shapeloss.cli import results, review  # noqa: F401 (their commands)
from shapeloss.cli.app import Profile, app
from shapeloss.cli.imports import app as import_app

app.add_typer(import_app, name="import")


def _show_version(requested: bool) -> None:
    if requested:
        print(f"shapeloss {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Distance-penalised losses for 3D medical image segmentation."""


@app.command()
def phantom(folder: Annotated[Path, typer.Argument(help="Where to write it.")], profile: Profile) -> None:
    """Make the built-in data set of synthetic knees, in Decathlon layout."""
    from shapeloss.phantom.dataset import write_dataset
    from shapeloss.replication.profile import load_experiment

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
    """Check a data set for everything that would spoil a run, and assign its cases to the splits."""
    from shapeloss.data.layout import find_cases
    from shapeloss.data.manifest import prepare
    from shapeloss.replication.profile import load_experiment

    experiment = load_experiment(profile)
    manifest = prepare(experiment.data, folder, output, experiment.name)
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Make label maps again that are there.")] = False,
    side: Annotated[str, typer.Option(help="left or right, if the run mirrors knees and no import.json says it.")] = "",
    any_spacing: Annotated[
        bool, typer.Option("--any-spacing", help="Voxels more than twice as fine or coarse as in the training, too.")
    ] = False,
) -> None:
    """Segment new images with a trained network; each label map lies on its image's own grid."""
    from shapeloss.runs.predict_folder import load_run, predict_files

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


def main() -> None:
    """Run a command; a user's mistake ends in one message, not in a traceback."""
    try:
        app(standalone_mode=True)
    except OSError as error:
        from shapeloss._files import os_error_message

        if error.errno is None:  # raised here, with its own words and the remedy
            sys.exit(f"error: {error}")
        place = Path(error.filename).parent if isinstance(error.filename, str) else Path.cwd()
        sys.exit(f"error: {os_error_message(error, place, goes_on=False)}")
    except ValueError as error:
        sys.exit(f"error: {error}")
