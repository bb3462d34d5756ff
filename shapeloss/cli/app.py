"""What the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Profile = Annotated[Path, typer.Option(help="A profile: a file, or the name of a built-in one, such as phantom.")]
