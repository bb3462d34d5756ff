"""Builds the wheel, installs it with each extra in a bare environment, and runs what the extra promises.

    python tests/jobs/wheel.py                  # all: about ten minutes, and a connection to PyPI
    python tests/jobs/wheel.py core review      # these alone

Nothing of the checkout is on the path of these environments. What an extra lacks must be named with the command that
installs it. `old-torch` is the core in an environment that has another torch already, which must stay.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLD_TORCH = "2.6.0"
PATIENCE = 1800  # seconds for one command

CORE = """
import numpy as np, torch
from shapeloss.distance import distance_penalty
from shapeloss.losses import LOSSES, build_loss
from shapeloss.metrics import METRICS, score_case
from shapeloss.train import TrainingOptions, TrainingVolume, fit
from shapeloss.predict import predict_labels
from shapeloss.vnet import VNet, VNetOptions
labels = torch.zeros(4, 12, 12, dtype=torch.long)
labels[:, 3:9, 3:9] = 1
knee = TrainingVolume(labels.float(), labels, (2.0, 0.5, 0.5))
for key in LOSSES:
    loss = build_loss(key, num_classes=2, spacing=knee.spacing)
    network = VNet(1, 2, VNetOptions((8, 8), (1, 1), ((1, 2, 2),)))
    state = fit(network, loss, [knee], TrainingOptions(steps=2))
    assert len(state.losses) == 2, key
predicted = predict_labels(network, knee.image[None, None])
rows = score_case(labels.numpy(), predicted, knee.spacing, {1: "femur"}, metrics=tuple(METRICS))
assert len(rows) == 3
"""
VOLUMES = """
import numpy as np
from shapeloss.data.volume import read_labels, write_nifti
labels = np.zeros((4, 6, 5), np.uint8)
labels[1:3, 1:5, 1:4] = 1
for folder in ("truth", "found"):
    for case in "abc":
        write_nifti(f"{folder}/{case}.nii.gz", labels, np.diag([2.0, 0.5, 0.5, 1.0]))
        labels[2, 1, "abc".index(case)] = 1
assert read_labels("truth/a.nii.gz").spacing == (2.0, 0.5, 0.5)
"""
TRAIN = """
from pathlib import Path
from shapeloss.data.manifest import read_manifest
from shapeloss.replication.profile import load_experiment
from shapeloss.runs.run import train
train(load_experiment("smoke"), read_manifest("cases.json"), "dpce", 0, "run", "maps")
assert Path("run/weights.safetensors").is_file()
"""
TABLES = """
import random
for name in ("a", "b"):
    rows = [f"case{n},{random.random()},{random.random()}" for n in range(8)]
    open(f"{name}.csv", "w").write("\\n".join(["case,dice,boundary_dice_in_plane", *rows]))
"""
PROMISES: dict[str, list[list[str]]] = {
    "core": [["python", "-c", CORE]],
    "old-torch": [["python", "-c", CORE]],
    "io": [["python", "-c", VOLUMES]],
    "train": [
        ["shapeloss", "phantom", "--profile", "smoke", "data"],
        ["shapeloss", "check", "data", "--profile", "smoke", "--output", "cases.json"],
        ["python", "-c", TRAIN],
        ["shapeloss", "predict", "run", "data/imagesTr", "predicted"],
    ],
    "review": [
        ["python", "-c", VOLUMES],
        ["shapeloss", "evaluate", "found", "truth", "--output", "scores"],
        ["python", "-c", TABLES],
        ["shapeloss", "compare", "a.csv", "b.csv"],
        ["shapeloss", "audit", "number", "0.96", "0.12", "10", "--low", "0", "--high", "1"],
        ["shapeloss", "audit", "paper", "--output", "audit.md"],
    ],
    "import": [
        ["python", "-c", VOLUMES],
        ["shapeloss", "import", "pairs", "found", "truth", "set", "--labels", "1:femur", "--licence", "CC0"],
    ],
    "reproduce": [
        ["python", "-c", "from shapeloss.metrics.mesh import label_surface; import pyvista, snakemake, papermill"],
        ["shapeloss", "phantom", "--profile", "smoke", "data"],
        [
            "python",
            "-c",
            "from shapeloss._resources import find_profile\n"
            "from shapeloss.replication.convergence import read_cited_study\n"
            "assert read_cited_study(find_profile('phantom'), '').name == 'study'",
        ],
    ],
}
"""What each environment must be able to do."""
LACKING: dict[str, list[tuple[list[str], str]]] = {
    "core": [
        (["python", "-c", "import shapeloss.data.volume"], "pip install 'shapeloss[io]'"),
        (["python", "-c", "import shapeloss.stats.compare_losses"], "pip install 'shapeloss[review]'"),
        (["shapeloss", "evaluate", "a", "b"], "pip install 'shapeloss[review]'"),
        (["shapeloss", "predict", "a", "b", "c"], "pip install 'shapeloss[train]'"),
        (["shapeloss", "import", "oaizib", "a"], "pip install 'shapeloss[import]'"),
    ],
    "train": [(["python", "-c", "import shapeloss.plotting.charts"], "pip install 'shapeloss[review]'")],
    "import": [(["shapeloss", "evaluate", "found", "truth"], "pip install 'shapeloss[review]'")],
    "review": [
        (
            ["python", "-c", "import numpy as np; from shapeloss.metrics.mesh import label_surface\n"
             "label_surface(np.pad(np.ones((3, 3, 3), bool), 2), (1, 1, 1))"],
            "pip install 'shapeloss[reproduce]'",
        )
    ],
}  # fmt: skip
"""What an environment cannot do, and what it must answer."""


def run(*command: str | Path, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is kept, and shown if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:300]}\n{done.stdout}\n{done.stderr}")
    return done


def build(folder: Path) -> Path:
    """The wheel, built from the sdist; both hold what they should."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    tables = ("paper.yaml", "relation.csv", "correlations.csv", "trainings.csv")
    needed = {"shapeloss/py.typed", *[f"shapeloss/_resources/{name}" for name in tables]}
    needed |= {f"shapeloss/_resources/profiles/{path.name}" for path in (ROOT / "reproduce/profiles").glob("*.yaml")}
    needed |= {f"shapeloss/_resources/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    needed |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "shapeloss").rglob("*.py")}
    assert needed <= names, f"the wheel lacks {needed - names}"
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "constraints.txt", "tests/conftest.py", "reproduce/Snakefile", "LICENSE"} <= inside
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(names)} files", flush=True)
    return wheel


def try_extra(name: str, wheel: Path, folder: Path) -> None:
    """Install into a new environment, run what is promised and what is lacking."""
    place = folder / name
    venv.create(place / "env", with_pip=True)
    bin_ = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = [bin_ / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    what = str(wheel) if name in ("core", "old-torch") else f"{wheel}[{name}]"
    if name == "old-torch":
        run(*pip, f"torch=={OLD_TORCH}", "numpy")
        run(*pip, what)
        found = run(bin_ / "python", "-c", "import torch; print(torch.__version__)").stdout.strip()
        assert found.startswith(OLD_TORCH), f"torch {OLD_TORCH} became {found}"
    else:
        run(*pip, "-c", ROOT / "constraints.txt", what)
    packages = run(
        bin_ / "python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"
    ).stdout.split()
    size = sum(path.stat().st_size for path in (place / "env").rglob("*") if path.is_file() and not path.is_symlink())
    work = place / "work"
    work.mkdir()
    for command, answer in LACKING.get(name, []):
        done = run(bin_ / command[0], *command[1:], cwd=work, check=False)
        said = done.stdout + done.stderr
        if not done.returncode or answer not in said:
            raise SystemExit(f"{name}: {command[:4]} must answer {answer}; it said\n{said}")
    for command in PROMISES[name]:
        run(bin_ / command[0], *command[1:], cwd=work)
    print(f"{name}: {len(packages)} packages, {size / 1e6:.0f} MB, all promises kept", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("extras", nargs="*", help=f"some of {', '.join(PROMISES)}; default: all")
    extras = parser.parse_args().extras or list(PROMISES)
    if unknown := set(extras) - set(PROMISES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PROMISES)}")
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        for name in extras:
            try_extra(name, wheel, Path(folder))


if __name__ == "__main__":
    main()
