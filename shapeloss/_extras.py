"""The optional libraries: which extra of the package brings them, and what to say where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "io": ("nibabel", "SimpleITK", "safetensors", "pydantic"),
    "train": ("pandas", "monai", "yaml", "tqdm", "typer", "rich", "markdown_it"),
    "review": ("igl", "pandas", "matplotlib", "yaml", "tqdm", "typer", "rich", "markdown_it"),
    "import": ("monai", "huggingface_hub", "yaml", "tqdm", "typer", "rich", "markdown_it"),
    "reproduce": ("pyvista", "snakemake", "papermill", "ipykernel", "ipywidgets", "jinja2"),
}
"""Extra → the modules that it brings; `train`, `review` and `import` bring those of `io` too, `reproduce` all."""


def install_command(extra: str) -> str:
    """What to type."""
    return f"pip install 'shapeloss[{extra}]'"


def require(extra: str, *modules: str) -> None:
    """Raise ModuleNotFoundError, with the command that installs it, if one of these modules is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(
                f"{module} is not installed, which this part of shapeloss needs; {install_command(extra)}", name=module
            )
