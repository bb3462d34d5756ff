"""The commands: `shapeloss --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Distance-penalised losses for 3D medical image segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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

    manifest = prepare(load_experiment(profile), folder, output)
    print(f"{len(manifest.cases)} cases, classes {', '.join(manifest.classes.values())}: no problem found")


def main() -> None:
    """Run a command; a user's mistake ends in one message, not in a traceback."""
    try:
        app(standalone_mode=True)
    except (ValueError, FileNotFoundError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
