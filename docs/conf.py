"""The documentation: `make docs`."""

import os
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext")]

import shapeloss

project = "shapeloss"
author = "the authors of shapeloss"
release = version = shapeloss.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "mathml"]
html_theme = "furo"
html_title = "shapeloss"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["../figures/explorer.html"]
exclude_patterns = ["_build", "_ext", "results"]
nitpicky = False

# notebooks: executed at each build, as a user opens them, on the smallest profile
os.environ["SHAPELOSS_STATIC"] = "1"  # pictures in place of sliders
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_execution_show_tb = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages of the repository have one title and go on with level two

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["nnunetv2"]
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True, "no-value": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def copy_sources(app):
    """Notebooks and the changelog lie outside this folder."""
    for folder in ("notebooks", "notebooks/workshop"):
        (DOCS / folder).mkdir(exist_ok=True)
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            shutil.copy(path, DOCS / folder)
    shutil.copy(ROOT / "CHANGELOG.md", DOCS / "changelog.md")
    shutil.copy(ROOT / "CONTRIBUTING.md", DOCS / "contributing.md")


def links_to_the_repository(app, name, source):
    """On GitHub a page links to files of the repository; here such a link names the file."""

    def shown(match):
        text, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path or name.startswith("notebooks/"):
            return match.group(0)
        base = ROOT if name in ("changelog", "contributing") else (DOCS / name).parent
        place = (base / path).resolve()
        inside = place.is_relative_to(DOCS) and place.suffix in (".md", ".ipynb")
        if inside or (DOCS / "notebooks" / place.name).is_file():
            page = f"notebooks/{place.name}" if place.suffix == ".ipynb" else place.relative_to(DOCS).as_posix()
            up = "../" * name.count("/")
            return f"[{text}]({up}{page}{'#' + anchor if anchor else ''})"
        if place.suffix == ".png":
            return match.group(0)
        if place == ROOT / "figures" / "explorer.html":  # html_extra_path puts it beside the index
            return f'<a href="{"../" * name.count("/")}explorer.html">{text.strip("`")}</a>'
        file = place.relative_to(ROOT).as_posix()
        return text if text.strip("`") == file else f"{text} (`{file}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", shown, source[0])


def plain_docstrings(app, what, name, obj, options, lines):
    """Docstrings are plain text: |T| is no substitution of reStructuredText, and `x` is code."""
    if what in ("attribute", "data") and lines:  # napoleon would take words before a colon for a type
        lines[0] = re.sub(r"(?<!:):(?![:\w])", " –", lines[0], count=1)
    for index, line in enumerate(lines):
        line = re.sub(r"\|", r"\\|", line) if ">>>" not in line else line
        lines[index] = re.sub(r"(?<![:`\w])`([^`]+)`(?![`_])", r"``\1``", line)


def setup(app):
    app.connect("builder-inited", copy_sources)
    app.connect("source-read", links_to_the_repository)
    app.connect("autodoc-process-docstring", plain_docstrings, priority=10)  # before napoleon
