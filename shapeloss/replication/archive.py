"""A results folder as an RO-Crate, with a rubric: what must agree in it, for a reviewer or a program to tick.

Format: RO-Crate 1.1 (https://w3id.org/ro/crate/1.1), its actions after Process Run Crate 0.5
(https://w3id.org/ro/wfrun/process/0.5). `ro-crate-metadata.json` describes the files beside it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, unquote

import nbformat
import numpy as np
import torch

from shapeloss import __version__
from shapeloss._files import file_hash, write_json, write_text
from shapeloss._resources import find_profile, resource
from shapeloss.data.checksums import DamagedError, read_checked_json, write_checked_json
from shapeloss.data.manifest import Manifest, read_manifest
from shapeloss.predict import postprocess, predict_labels
from shapeloss.replication.paper import read_paper
from shapeloss.replication.profile import Experiment, load_experiment
from shapeloss.replication.reanalyze import SAME_NUMBER, SAME_PICTURE, reanalyze
from shapeloss.replication.scores import RECORD, SCORES, distinct_machines, read_record, run_folders
from shapeloss.replication.verify import ROUNDING, verify
from shapeloss.runs.map_cache import mapped
from shapeloss.runs.predict_folder import load_run
from shapeloss.runs.provenance import ROOT

METADATA = "ro-crate-metadata.json"
PROFILE, PAPER, RUBRIC = "profile.yaml", "paper.yaml", "RUBRIC.md"
RESULTS, FIGURES, ENVIRONMENT = "results", "figures", "environment"
SAME_VOXELS = 0.001
"""Share of the voxels in which a prediction made again may differ: another processor rounds otherwise."""
KEPT = ("run.json", "history.csv", "weights.safetensors", "predictions/*.nii.gz")
"""What is archived of a training; a checkpoint, from which it would go on, is not."""


# --- writing ---------------------------------------------------------------------------------------------------------


def write_archive(
    profile: str | Path, results: str | Path, figures: str | Path, output: str | Path, licence: str
) -> list[str]:
    """Copy what a replication left behind into a new folder, with a description of all of it and the rubric.

    Args:
        profile: name or file of the profile.
        results: its working folder, with the trainings.
        figures: its table, scores, verdicts and pictures.
        output: a folder that does not exist yet.
        licence: URL of the licence of the archive as a whole.

    Returns:
        What was left out, in words.

    Raises:
        FileExistsError: there is something at `output`.
        FileNotFoundError: a training of the profile has not ended, or nothing was scored; says what to run.
    """
    output, results, figures = Path(output), Path(results), Path(figures)
    if output.exists():
        raise FileExistsError(f"{output} is there already; give the name of a new folder")
    experiment = load_experiment(profile)
    manifest = read_manifest(results / "cases.json")
    folders = list(_trainings(experiment, results))
    for needed in (*[folder / "run.json" for folder in folders], figures / SCORES, figures / RECORD):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} does not exist: run make reproduce with this profile first, to its end")
    work = output.with_name(f"{output.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    left_out = ["checkpoints of the trainings and cached maps, which are made again"]
    _copy(find_profile(profile), work / PROFILE)
    _copy(resource("paper.yaml"), work / PAPER)
    record = read_checked_json(results / "cases.json") | {"folder": "data"}  # no path of this machine
    (work / RESULTS).mkdir()
    write_checked_json(work / RESULTS / "cases.json", record)
    for folder in folders:
        for pattern in KEPT:
            for path in sorted(folder.glob(pattern)):
                _copy(path, work / RESULTS / path.relative_to(results))
    for path in sorted((results / "notebooks").rglob("*.ipynb")):
        _copy(path, work / RESULTS / path.relative_to(results))
    if experiment.data.phantom:
        shutil.copytree(manifest.folder, work / RESULTS / "data", copy_function=shutil.copyfile)
    else:
        left_out.append(
            f"the data of {experiment.description}, whose licence may forbid it: cases.json has their hashes"
        )
    shutil.copytree(figures, work / FIGURES, copy_function=shutil.copyfile, ignore=_other_results)
    _write_environment(folders, work / ENVIRONMENT)
    write_text(work / RUBRIC, rubric_text(experiment))
    write_json(work / METADATA, describe(experiment, work, licence))
    work.rename(output)
    return left_out


def _trainings(experiment: Experiment, results: Path) -> Iterator[Path]:
    for name in ("", *experiment.variations):
        yield from (folder for _, _, folder in run_folders(experiment.variation(name), results))


def _run_name(folder: Path) -> str:
    """A training in words: runs/<loss>/seed<n>."""
    return "/".join(folder.parts[-3:])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _other_results(folder: str, names: list[str]) -> list[str]:
    """Folders with the results of other profiles, which lie below those of the default."""
    return [name for name in names if (Path(folder) / name / SCORES).is_file()]


def _write_environment(folders: list[Path], output: Path) -> None:
    """The pinned dependencies, where this checkout has them, and what each training says of where it ran."""
    output.mkdir(parents=True)
    pinned = ROOT / "constraints.txt"
    if pinned.is_file():
        shutil.copyfile(pinned, output / pinned.name)
    machines: dict[str, list[str]] = {}
    for folder in folders:
        (machine,) = distinct_machines([read_checked_json(folder / "run.json")])
        machines.setdefault(json.dumps(machine, sort_keys=True), []).append(_run_name(folder))
    write_json(output / "machines.json", [json.loads(key) | {"trainings": runs} for key, runs in machines.items()])


def describe(experiment: Experiment, folder: Path, licence: str) -> dict[str, Any]:
    """The metadata of an RO-Crate for a folder: every file with its size and SHA-256, and what was made by what."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != METADATA]
    names = {path: quote(path.relative_to(folder).as_posix()) for path in files}
    parts = [
        {
            "@id": name, "@type": "File", "name": path.name, "contentSize": str(path.stat().st_size),
            "sha256": file_hash(path), "encodingFormat": TYPES.get(path.suffix, "application/octet-stream"),
        }
        for path, name in names.items()
    ]  # fmt: skip
    given = [{"@id": PROFILE}, {"@id": f"{RESULTS}/cases.json"}]
    actions: list[dict[str, Any]] = []
    for run in sorted((folder / RESULTS).rglob("run.json")):
        values = read_checked_json(run)
        where = run.parent.relative_to(folder / RESULTS).as_posix()
        made = [{"@id": name} for path, name in names.items() if path.is_relative_to(run.parent)]
        place = f"node {values.get('node', 'unknown')}, processor {values['processor']}, commit {values['commit']}"
        actions.append(
            {
                "@id": f"#{quote(where)}", "@type": "CreateAction", "name": f"Training {where}", "description": place,
                "instrument": {"@id": SOFTWARE}, "object": given, "result": made,
            }
        )  # fmt: skip
    predicted = [part for action in actions for part in action["result"] if part["@id"].endswith(".nii.gz")]
    scored = [{"@id": name} for name in names.values() if name.startswith(f"{FIGURES}/")]
    record = read_record(folder / FIGURES)["provenance"]
    actions.append(
        {
            "@id": "#evaluation", "@type": "CreateAction", "name": "Evaluation of all predictions",
            "description": f"commit {record['commit']}", "instrument": {"@id": SOFTWARE},
            "object": [*given, *predicted], "result": scored,
        }
    )  # fmt: skip
    now = datetime.now(UTC).date().isoformat()
    root = {
        "@id": "./", "@type": "Dataset", "name": f"Replication with the profile {experiment.name}",
        "description": f"Trainings, predictions, scores, table and figures of {experiment.description}.",
        "datePublished": now, "license": {"@id": licence}, "conformsTo": {"@id": PROCESS_RUN},
        "hasPart": [{"@id": part["@id"]} for part in parts], "mentions": [{"@id": a["@id"]} for a in actions],
    }  # fmt: skip
    head = [
        {
            "@id": METADATA, "@type": "CreativeWork", "about": {"@id": "./"},
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        },
        root,
        {"@id": PROCESS_RUN, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": licence, "@type": "CreativeWork", "name": licence.rsplit("/", 1)[-1]},
        {
            "@id": SOFTWARE, "@type": "SoftwareApplication", "name": "shapeloss", "softwareVersion": __version__,
            "description": "Distance-penalised losses for 3D medical image segmentation; its version is the commit "
            "that scored the predictions, and each training names its own",
            "version": record["commit"], **_repository(),
        },
    ]  # fmt: skip
    context = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
    return {"@context": context, "@graph": [*head, *parts, *actions]}


def _repository() -> dict[str, str]:
    """Where the code lies, as the installed package says (`[project.urls]` in pyproject.toml), if it does."""
    urls = dict(url.split(", ", 1) for url in metadata("shapeloss").get_all("Project-URL") or [])
    return {"codeRepository": urls["Repository"]} if "Repository" in urls else {}


SOFTWARE, PROCESS_RUN = "#shapeloss", "https://w3id.org/ro/wfrun/process/0.5"
TYPES = {
    ".json": "application/json", ".csv": "text/csv", ".md": "text/markdown", ".png": "image/png", ".txt": "text/plain",
    ".pdf": "application/pdf", ".html": "text/html", ".yaml": "application/yaml", ".gz": "application/gzip",
    ".ipynb": "application/x-ipynb+json", ".tex": "application/x-tex",
}  # fmt: skip


# --- the rubric ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """One line of the rubric, as found."""

    name: str
    state: str
    """`agrees`, `differs`, or `not looked at`."""
    detail: str
    """What was counted; each thing that differs; or why it was not looked at."""


@dataclass(frozen=True)
class _Opened:
    folder: Path
    experiment: Experiment
    manifest: Manifest
    """With the folder where the data are now."""

    @property
    def has_data(self) -> bool:
        return self.manifest.folder.is_dir()


Finding = tuple[list[str], str]
"""What differs, and what was counted."""


class _NotLookedAt(Exception):
    """There is nothing to compare; says why."""


def _files(crate: _Opened) -> Finding:
    graph = json.loads((crate.folder / METADATA).read_text(encoding="utf-8"))["@graph"]
    described = {unquote(e["@id"]): e["sha256"] for e in graph if e["@type"] == "File"}
    there = {path.relative_to(crate.folder).as_posix() for path in crate.folder.rglob("*") if path.is_file()}
    wrong = [f"{name}: is not there" for name in sorted(described.keys() - there)]
    wrong += [f"{name}: is not described" for name in sorted(there - described.keys() - {METADATA})]
    same = sorted(described.keys() & there)
    wrong += [f"{n}: its SHA-256 differs" for n in same if file_hash(crate.folder / n) != described[n]]
    return wrong, f"{len(described)} files"


def _complete(crate: _Opened) -> Finding:
    folders = list(_trainings(crate.experiment, crate.folder / RESULTS))
    missing = [f"{_run_name(f)}: no such training" for f in folders if not (f / "run.json").is_file()]
    return missing, f"{len(folders)} trainings"


def _together(crate: _Opened) -> Finding:
    found = verify(crate.folder / RESULTS, crate.folder / FIGURES, crate.manifest.folder)
    counted = found.to_text().splitlines()[0]
    return found.problems, "; ".join([counted, *found.notes])


def _follows(crate: _Opened) -> Finding:
    own, kept = resource("paper.yaml"), crate.folder / PAPER
    paper = kept if kept.is_file() else own  # an archive of an earlier version has none
    made = reanalyze(crate.folder / FIGURES, read_paper(paper))
    counted = f"{len(made)} files made again"
    if file_hash(paper) != file_hash(own):
        counted += f"; {PAPER} of the archive is not that of this version of shapeloss"
    return [f"{c.name}: {c.problem}" for c in made if c.problem], counted


@contextmanager
def _threads_of(record: dict[str, Any]) -> Iterator[None]:
    """As many threads as a training on a CPU had: with others the last bits differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(record.get("threads", before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _predicts(crate: _Opened) -> Finding:
    if not crate.has_data:
        raise _NotLookedAt("the data are not in the archive; name their folder (--data)")
    wrong, name = [], crate.manifest.names("test")[0]
    folders = list(_trainings(crate.experiment, crate.folder / RESULTS))
    image = mapped(crate.manifest.load(name).image)[None, None]
    for folder in folders:
        run, record = load_run(folder), read_checked_json(folder / "run.json")
        with _threads_of(record):
            labels = predict_labels(run.network, image, run.training.patch_size, record["precision"])
        labels = postprocess(labels, run.postprocessing)
        with TemporaryDirectory() as temporary:  # written and read, so that it lies on the image's own grid
            crate.manifest.write_labels(path := Path(temporary) / f"{name}.nii.gz", labels, name)
            made = crate.manifest.read_labels(path)
        kept = crate.manifest.read_labels(folder / "predictions" / path.name)
        share = float(np.mean(made != kept)) if made.shape == kept.shape else 1.0
        if share > SAME_VOXELS:
            wrong.append(f"{_run_name(folder)}: {share:.2%} of the voxels of {name} differ")
    return wrong, f"one case of {len(folders)} trainings, up to {SAME_VOXELS:.1%} of the voxels may differ"


def _notebooks(experiment: Experiment) -> Iterator[str]:
    """The notebooks that a replication leaves behind, as paths below its folder of notebooks."""
    yield from (f"{name}.ipynb" for name in experiment.notebooks)
    yield from (f"02_train_{loss}_seed{seed}.ipynb" for loss, seed, _ in run_folders(experiment, ""))
    for name in experiment.variations:
        runs = run_folders(experiment.variation(name), "")
        yield from (f"variations/02_train_{name}_{loss}_seed{seed}.ipynb" for loss, seed, _ in runs)


def _executed(crate: _Opened) -> Finding:
    folder = crate.folder / RESULTS / "notebooks"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb")}
    wrong = [f"{name}: is not there" for name in sorted({*_notebooks(crate.experiment)} - there)]
    for name in sorted(there):
        cells = [c for c in nbformat.read(folder / name, 4).cells if c.cell_type == "code" and c.source.strip()]
        ran = sum(cell.execution_count is not None for cell in cells)
        if any(out.output_type == "error" for cell in cells for out in cell.outputs):
            wrong.append(f"{name}: a cell failed")
        elif not cells or ran < len(cells):
            wrong.append(f"{name}: {len(cells) - ran} of {len(cells)} cells were not executed")
    return wrong, f"{len(there)} notebooks"


def _known(crate: _Opened) -> Finding:
    machines = json.loads((crate.folder / ENVIRONMENT / "machines.json").read_text(encoding="utf-8"))
    trained = sorted({str(machine["commit"]) for machine in machines})
    scored = str(read_record(crate.folder / FIGURES)["provenance"]["commit"])
    wrong = [
        f"commit {commit} of the {what}: names no state of the code"
        for what, commits in (("trainings", trained), ("scores", [scored]))
        for commit in commits
        if commit == "unknown" or commit.endswith("+changes")
    ]
    counted = f"commits {', '.join(trained)} of the trainings, {scored} of the scores"
    return wrong, f"{counted}, {len(machines)} kinds of machine or version"


CHECKS: tuple[tuple[str, str, Callable[[_Opened], Finding]], ...] = (
    ("files", "Every file has the SHA-256 that the metadata state, and none is without.", _files),
    ("complete", "Each loss, seed and variation of the profile has its training.", _complete),
    ("together", "Data, trainings and predictions belong together; each training has scores of every test case and "
     f"structure, and they are those of its predictions (to within {ROUNDING:g}).", _together),
    ("predicts", "The weights predict what is kept as their prediction: one test case of each training (up to "
     f"{SAME_VOXELS:.1%} of the voxels may differ, as another processor rounds otherwise).", _predicts),
    ("follows", f"Table, verdicts and pictures follow from the scores and `{PAPER}`: pages to the last byte, "
     f"numbers of CSV to within {SAME_NUMBER:g} of their size, grey values of pictures up to a root mean square "
     f"difference of {SAME_PICTURE:g} of 255.", _follows),
    ("executed", "The notebook of each step and training is there, each of its cells was executed, and none failed.",
     _executed),
    ("known", "Every training, and the scores, name the commit of their code, without changes.", _known),
)  # fmt: skip


def rubric_text(experiment: Experiment) -> str:
    """The rubric as Markdown, to be ticked by hand."""
    lines = [f"# What must agree in this archive of the profile `{experiment.name}`", "", COMMAND, ""]
    lines += [f"- [ ] **{name}**: {statement}" for name, statement, _ in CHECKS]
    lines += [
        f"- [ ] **again**: `make reproduce PROFILE={experiment.name}` at the commit in `{ENVIRONMENT}/machines.json`, "
        f"then `make compare PROFILE={experiment.name}`: on the same kind of processor the table is the same to the "
        "last digit; on another, trainings round otherwise, and differ as other seeds do.",
    ]
    if experiment.study:
        lines += [
            "",
            f"Captions cite the study `{experiment.study}`, which is not in the archive: for **follows**, `archive "
            "check` takes the study that comes with the shapeloss that checks.",
        ]
    return "\n".join(lines) + "\n"


COMMAND = (
    "`shapeloss archive check FOLDER` ticks all but the last, with `--data` where the data are not in the archive. "
    "The last needs the time of the trainings."
)


def check_archive(folder: str | Path, data: str | Path | None = None) -> list[Tick]:
    """Tick the rubric of an archive.

    Args:
        folder: that :func:`write_archive` wrote.
        data: the data set, where the archive does not hold it.

    Raises:
        FileNotFoundError: the folder is no such archive.
    """
    folder = Path(folder)
    for name in (METADATA, PROFILE, f"{RESULTS}/cases.json", f"{FIGURES}/{RECORD}"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; expected a folder that shapeloss archive make wrote")
    manifest = read_manifest(folder / RESULTS / "cases.json")
    place = Path(data) if data is not None else folder / RESULTS / "data"
    crate = _Opened(folder, load_experiment(folder / PROFILE), replace(manifest, folder=place))
    return [_tick(name, check, crate) for name, _, check in CHECKS]


def _tick(name: str, check: Callable[[_Opened], Finding], crate: _Opened) -> Tick:
    try:
        wrong, counted = check(crate)
    except _NotLookedAt as reason:
        return Tick(name, "not looked at", str(reason))
    except (DamagedError, OSError, ValueError, KeyError) as error:
        return Tick(name, "differs", f"could not be read: {error}")
    return Tick(name, "differs", "; ".join(wrong)) if wrong else Tick(name, "agrees", counted)
