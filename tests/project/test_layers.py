"""The layers: what may import what, and what the core needs. README and CONTRIBUTING.md show the same map."""

import ast
import subprocess
import sys

import pytest
from helpers.project import ROOT

from shapeloss._closure import PACKAGE, code_hash, import_closure, notebook_closure

CORE = ("_extras", "_typing", "distance", "losses", "metrics", "vnet", "predict", "train")
LAYERS = (
    ("_extras", "_files", "_typing", "progress"),
    ("_closure", "_resources"),
    ("distance",),
    ("losses", "metrics", "vnet"),
    ("predict",),
    ("train",),
    ("phantom.anatomy", "phantom.contrast", "phantom.knee", "phantom.reader"),
    ("data",),
    ("phantom.biomarkers", "phantom.correspondence", "phantom.dataset", "phantom.population", "stats"),
    ("plotting",),
    ("runs",),
    ("replication",),
    ("review", "importers", "integrations"),
    ("shards",),
    ("workshop",),
    ("cli",),
    ("__main__",),
)
"""From the bottom up: a module imports from its own layer's part and from layers below."""
LIBRARIES = {"torch", "numpy", "scipy", "edt", "skimage"}
FOREIGN = ("pandas", "monai", "lightning_fabric", "pydantic", "matplotlib", "nibabel", "pyvista", "SimpleITK", "typer")


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def layer(module):
    """(height, part) of a module."""
    for height, parts in enumerate(LAYERS):
        for part in parts:
            if module == part or module.startswith(f"{part}."):
                return height, part
    return None


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if name_of(path) not in ("", "__init__")}
EMPTY_PACKAGES = {name for name, path in MODULES.items() if len(ast.parse(path.read_text(encoding="utf-8")).body) < 2}


def direct_imports(path):
    """Modules of this package that one imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "shapeloss":
            base = str(node.module).removeprefix("shapeloss").lstrip(".")
            for name in node.names:
                full = f"{base}.{name.name}".lstrip(".")
                found.add(full if full in MODULES else base)
        elif isinstance(node, ast.Import):
            found |= {n.name.removeprefix("shapeloss.") for n in node.names if n.name.startswith("shapeloss.")}
    return found - {""}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_part_and_from_layers_below(module):
    if module in EMPTY_PACKAGES:
        return
    assert layer(module), f"{module} is in no layer: add it to LAYERS"
    height, part = layer(module)
    for other in direct_imports(MODULES[module]):
        there, its_part = layer(other)
        same = its_part == part or (there <= height and its_part.partition(".")[0] == part.partition(".")[0])
        assert same or there < height, f"{module} imports {other}, which lies above or beside it"


def test_no_cycle():
    """Modules can be put in an order in which each imports earlier ones only."""
    waiting = {name: direct_imports(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    for name in list(waiting):  # a package stands for what its __init__ imports
        waiting[name] -= EMPTY_PACKAGES
    while waiting:
        free = [name for name, needs in waiting.items() if not needs & set(waiting)]
        assert free, f"these import each other: {sorted(waiting)}"
        for name in free:
            del waiting[name]


def test_the_core_is_closed_under_import():
    closure = {name_of(path) for path in import_closure(*[f"shapeloss.{name}" for name in CORE])}
    whole = {name for name in MODULES if name.partition(".")[0] in CORE}
    assert closure <= whole
    for name in sorted(whole):
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = {n.name if isinstance(node, ast.Import) else str(node.module) for node in top for n in node.names}
        libraries = {module.partition(".")[0] for module in imported} - set(sys.stdlib_module_names) - {"shapeloss"}
        assert libraries <= LIBRARIES, name


def test_what_the_core_loads():
    """At import time, in a process of its own."""
    imports = "; ".join(f"import {name_}" for name_ in (f"shapeloss.{n}" for n in (*CORE, "metrics.mesh")))
    code = f"import sys; {imports}; print([name for name in {FOREIGN!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_losses_load_little_beyond_torch():
    """`import shapeloss.losses` takes no longer than `import torch` and a tenth: these would take a sixth and more."""
    slow = ("scipy.ndimage", "scipy.sparse", "scipy.stats", "skimage", "shapeloss.train", "shapeloss.metrics")
    code = f"import sys, shapeloss.losses; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_review_needs_no_training():
    for name in MODULES:
        if name.startswith("review."):
            parts = {name_of(path).partition(".")[0] for path in import_closure(f"shapeloss.{name}")}
            assert not parts & {"runs", "train", "vnet", "predict", "importers", "cli"}, name


def test_nobody_imports_the_commands():
    importers = {name for name, path in MODULES.items() if any(m.startswith("cli") for m in direct_imports(path))}
    assert {name for name in importers if not name.startswith("cli")} == {"__main__"}


@pytest.mark.parametrize("module", ["shapeloss.runs.run", "shapeloss.phantom.dataset", "shapeloss.metrics"])
def test_a_closure_holds_all_that_is_loaded(module):
    code = f"import sys, {module}; print(*[n for n in sys.modules if n.startswith('shapeloss.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    closure = {f"shapeloss.{name_of(path)}" for path in import_closure(module)}
    assert set(done.stdout.split()) <= closure


def test_a_change_of_any_module_of_a_closure_changes_its_hash(monkeypatch):
    """One line in each; a change elsewhere changes nothing."""
    closure = import_closure("shapeloss.runs.run")
    before = code_hash("shapeloss.runs.run")
    read = type(PACKAGE).read_bytes
    for changed in MODULES.values():
        monkeypatch.setattr(
            type(PACKAGE), "read_bytes", lambda self, c=changed: read(self) + (b"# changed\n" if self == c else b"")
        )
        assert (code_hash("shapeloss.runs.run") != before) == (changed in closure), changed
        monkeypatch.undo()


def test_a_notebook_s_closure():
    code = "%matplotlib inline\n!ls\nfrom shapeloss import distance\nimport numpy as np\n"
    assert [name_of(path) for path in notebook_closure(code)] == ["_typing", "distance"]
    assert "losses.registry" in map(name_of, notebook_closure("from shapeloss.losses import build_loss"))


def test_a_relative_import_is_refused_and_an_unknown_module_named():
    with pytest.raises(ValueError, match="relative import"):
        notebook_closure("from . import distance")
    with pytest.raises(ValueError, match="is not a module of this package"):
        import_closure("shapeloss.nowhere")
