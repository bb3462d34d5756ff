"""Execute one notebook of the workflow with Papermill: `notebook.py IN.ipynb OUT.ipynb -p name value …`

Beyond `papermill` itself: a parameter that the notebook does not have is an error, not a warning; the output appears
only when it is whole (a failed one is kept as OUT.failed.ipynb); the same notebook is never executed twice at a time.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from shapeloss._files import FULL, atomic, locked, os_error_message
from shapeloss.runs.provenance import commit


def unknown_parameters(notebook: Path, names: list[str]) -> list[str]:
    """Which of these parameters the notebook does not have, each with the list of those it has."""
    known = papermill.inspect_notebook(as_it_is(notebook))
    has = f"it has {', '.join(known)}"
    return [f"{notebook.name} has no parameter {name!r}; {has}" for name in names if name not in known]


def as_it_is(path: Path) -> str:
    """A path for Papermill, which would fill parameters into its {braces}."""
    return str(path).replace("{", "{{").replace("}", "}}")


def execute(notebook: Path, output: Path, parameters: dict[str, object]) -> None:
    """Execute a notebook; `output` appears when the last cell has run, with the commit of the code in its metadata.

    Raises:
        ValueError: a parameter that the notebook does not have.
        PapermillExecutionError: a cell failed.
    """
    problems = unknown_parameters(notebook, list(parameters))
    if problems:
        raise ValueError("\n".join(problems))
    failed = output.with_suffix(".failed.ipynb")
    with locked(output.with_suffix(".lock"), f"{output.name} is still being made by another process; waiting for it"):
        failed.unlink(missing_ok=True)
        with atomic(output) as temporary:
            source = {"commit": commit()}
            try:
                book = papermill.execute_notebook(
                    as_it_is(notebook),
                    as_it_is(temporary),
                    parameters,
                    kernel_name="python3",
                    progress_bar=False,
                    cwd=str(output.parent),  # no setting of a library lies there
                )
            except PapermillExecutionError:
                os.link(temporary, failed)
                raise
            book.metadata["shapeloss"] = source
            nbformat.write(book, temporary)


def full_disk(text: str) -> OSError | None:
    """The error of a full disk that a cell of a notebook ended with, from its text; None if it is another error."""
    match = re.fullmatch(r"\[Errno (\d+)\] ([^:]*)(?:: ('[^']*'|\"[^\"]*\").*)?", text)
    if not match or int(match[1]) not in FULL:
        return None
    return OSError(int(match[1]), match[2], ast.literal_eval(match[3]) if match[3] else None)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    parameters = {
        name: yaml.safe_load(value) if name in ("seed", "threads") else value for name, value in arguments.parameters
    }
    output = arguments.output.resolve()
    try:
        execute(arguments.notebook, output, parameters)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    except OSError as error:
        if error.errno not in FULL:
            raise
        sys.exit(os_error_message(error, output.parent))
    except PapermillExecutionError as error:
        memory = " (the process may not have more memory: ulimit -v)" if "failed to map segment" in error.evalue else ""
        if error.ename == "CellExecutionError" and not error.evalue:
            memory = "its kernel could not say why, often for lack of memory; run the same command again"
        full = full_disk(error.evalue)
        sys.exit(
            f"{error.ename}: {error.evalue}{memory}\n(cell {error.exec_count} of "
            f"{arguments.output.with_suffix('.failed.ipynb')}, which holds everything up to there)"
            + (f"\n{os_error_message(full, output.parent)}" if full else "")
        )
    except RuntimeError as error:
        if "Kernel died" not in str(error):
            raise
        sys.exit(
            f"{output.name}: its kernel was ended from outside, often for lack of memory ({error}); run "
            "the same command again, which goes on from the last checkpoint"
        )


if __name__ == "__main__":
    main()
