"""From a trained network to label maps: prediction and post-processing."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from tqdm.auto import tqdm

from shapeloss._files import content_hash, exclusive, os_error_message, remove_partial_files, write_json
from shapeloss.data.checksums import DamagedError, load_tensors, read_checked_json
from shapeloss.data.grid import Triple, normalise
from shapeloss.data.headers import VolumeError
from shapeloss.data.manifest import read_sides, working_grid, write_labels_as
from shapeloss.data.names import find_volumes, one_line, volume_name
from shapeloss.data.options import Data
from shapeloss.data.scans import Scan, TrainedOn, describe, size
from shapeloss.data.volume import image_fault, read_volume
from shapeloss.predict import Postprocessing, postprocess, predict_labels
from shapeloss.runs.device import be_deterministic, find_device, known_faults, memory_errors
from shapeloss.runs.options import Network
from shapeloss.train import TrainingOptions
from shapeloss.vnet import VNet, lay_out

RECORD = "predict.json"
"""Beside label maps: which run made each of them, and for which side."""
PREDICT_LOCK = ".predict.lock"


@dataclass(frozen=True)
class TrainedRun:
    """A trained network with all that prediction needs: what `training.train` left in a folder."""

    network: VNet
    classes: dict[int, str]
    data: Data
    training: TrainingOptions
    postprocessing: Postprocessing
    trained_on: TrainedOn | None = None
    """What the training images were like; a run of before this was recorded says nothing."""

    @property
    def fingerprint(self) -> str:
        """A hash of all of it: equal for equal networks, wherever they lie."""
        weights = sorted(self.network.state_dict().items())
        sections = [self.data.model_dump(mode="json"), asdict(self.training), asdict(self.postprocessing)]
        scans = [self.trained_on.to_json()] if self.trained_on else []
        return content_hash(
            json.dumps([self.classes, *sections, *scans], sort_keys=True),
            *[part for name, values in weights for part in (name, values.cpu().numpy().tobytes())],
        )


def load_run(folder: str | Path) -> TrainedRun:
    """Read `run.json` and `weights.safetensors` of a training; neither can execute anything.

    Raises:
        FileNotFoundError, ValueError: one of them is missing or not what it should be.
    """
    folder = Path(folder)
    for name in ("run.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}; give a finished training's folder: results/<profile>/runs/<loss>/seed<n>"
            )
    try:
        values = read_checked_json(folder / "run.json")
        classes = {int(label): str(name) for label, name in values["classes"].items()}
        sections = values["experiment"]
        training = TypeAdapter(TrainingOptions).validate_python(sections["training"])
        weights = load_tensors(folder / "weights.safetensors")[0]
        sizes = Network.model_validate(sections["network"]).options
        network = VNet(1, max(classes) + 1, sizes, distance_head="distances.weight" in weights)
        network.load_state_dict(weights)
        data = Data.model_validate(sections["data"])
        post = TypeAdapter(Postprocessing).validate_python(sections["postprocessing"])
        trained_on = TrainedOn.from_json(values["trained_on"]) if "trained_on" in values else None
    except DamagedError as error:
        raise ValueError(f"{error}; copy it again from where it was trained, or train it again") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:  # pydantic's errors too
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{folder} is not a run of this version ({type(error).__name__}: {reason}); train it again"
        ) from error
    except RuntimeError as error:  # the weights are another network's
        raise ValueError(
            f"{folder / 'weights.safetensors'} does not fit the network of run.json; train again"
        ) from error
    return TrainedRun(network, classes, data, training, post, trained_on)


def predict_files(
    run: TrainedRun,
    images: str | Path,
    output: str | Path,
    device: str = "cpu",
    overwrite: bool = False,
    side: str = "",
    progress: bool = True,
    notes: list[str] | None = None,
    any_spacing: bool = False,
) -> tuple[list[Path], list[str]]:
    """Segment images; each label map lies on its image's own grid, with the image's affine.

    An image whose voxels are finer or coarser than those of the training by more than a tenth is noted, by more than
    twice refused. Where all training images had one voxel size, an image of another is resampled to it, and its label
    map back. `predict.json` beside them says which run made each, for which side, and to what its image was resampled;
    maps of two runs or sides are never mixed.

    Args:
        run: from :func:`load_run`.
        images: an image (NIfTI, NRRD, MetaImage) or a folder of them; nnU-Net's `_0000` is dropped from the name.
        output: folder for `<name>.nii.gz`.
        device: see :func:`shapeloss.runs.device.find_device`.
        overwrite: make label maps again that are there; otherwise they are kept.
        side: left or right, of all these images, where the run mirrors knees to one side; where it is empty, the
            `import.json` of their data set is asked.
        progress: show a bar with the time left.
        notes: takes lines about label maps that are kept, and about images that are not like those of the training.
        any_spacing: segment images of any voxel size.

    Returns:
        The label maps written, and what was wrong with the images that gave none.

    Raises:
        FileNotFoundError: no such image or folder.
        ValueError: a folder without images; an image that its label map would replace; an output folder with label maps
            of another run or side, which would be kept.
    """
    source, target = Path(images), Path(output)
    found, problems = find_images(source)
    for case, path in found.items():
        if (target / f"{case}.nii.gz").resolve() == path.resolve():
            raise ValueError(one_line(f"{path}: is an image that its label map would replace; choose another folder"))
    with exclusive(target, PREDICT_LOCK, f"another prediction writes into {target}; waiting until it ends"):
        side_of = find_sides(run, source, found, side)
        predictor = Predictor(run, target, side_of, device, overwrite, any_spacing)
        if notes is not None and not overwrite:
            notes += _describe_kept(target, found, predictor.record)
        if notes is not None:
            notes += known_faults(predictor.where)
        written: list[Path] = []
        unlike: dict[str, list[str]] = {}  # line → cases
        for case, path in tqdm(found.items(), desc="predict", unit="image", disable=not progress):
            if (target / f"{case}.nii.gz").exists() and not overwrite:
                continue
            try:
                place, lines = predictor.predict(case, path)
            except (VolumeError, OSError, MemoryError) as error:
                problems.append(predictor.reason(error, path))
                continue
            written.append(place)
            for line in lines:
                unlike.setdefault(line, []).append(case)
    if notes is not None:
        notes += [one_line(f"{_some(cases)}: {line}") for line, cases in unlike.items()]
        if run.trained_on is None:
            notes.append(
                "the run does not record what it was trained on: voxel sizes were not compared; train it again"
            )
    return written, problems


def find_images(source: Path) -> tuple[dict[str, Path], list[str]]:
    """Case → image, of an image or of a folder of them, and what is wrong with the others.

    nnU-Net's `_0000` is dropped from a name.

    Raises:
        FileNotFoundError: no such image or folder.
        ValueError: a folder without images.
    """
    if source.is_dir():
        found, problems = find_volumes(source)
    elif source.exists():
        found, problems = {volume_name(source): source}, []
    else:
        raise FileNotFoundError(f"{source}: there is no such file or folder; check the name")
    for name in [name for name in found if name.endswith("_0000") and name.removesuffix("_0000") in found]:
        first, second = found.pop(name.removesuffix("_0000")), found.pop(name)
        problems.append(f"{second}: is a second image of case {volume_name(first)}, beside {first.name}; remove one")
    channels = {name: case for name in found if (case := _case_of_channel(name, found))}
    for name, case in channels.items():
        problems.append(f"{found[name]}: is a second channel of case {case}; one image a case was expected: choose one")
    for name in {*channels, *(f"{case}_0000" for case in channels.values())}:
        del found[name]
    if not found and not problems:
        raise ValueError(f"{source}: holds no image that can be read; give NIfTI, NRRD or MetaImage files")
    return {name.removesuffix("_0000"): path for name, path in found.items()}, problems


def _case_of_channel(name: str, names: Collection[str]) -> str:
    """The case of which an image is the second or a later channel, by nnU-Net's names; empty if it is the first."""
    case = re.sub(r"_\d{4}$", "", name)
    return case if name not in (case, f"{case}_0000") and f"{case}_0000" in names else ""


def find_sides(run: TrainedRun, source: Path, cases: Iterable[str], side: str = "") -> dict[str, str]:
    """Case → left or right, where the run mirrors knees to one side: `side`, or what an import recorded, else empty."""
    sides = read_sides((source if source.is_dir() else source.parent).absolute().parent) if run.data.mirror_to else {}
    return {case: (side or sides.get(case, "")) if run.data.mirror_to else "" for case in cases}


class Predictor:
    """A run that writes label maps into one folder, one image at a time, and records there which run made each.

    From then on this process computes deterministically, as in training. The caller holds :data:`PREDICT_LOCK` of the
    folder.

    Args:
        run: from :func:`load_run`.
        folder: for `<case>.nii.gz` and `predict.json`.
        side_of: every case that may be predicted → its side, from :func:`find_sides`.
        device: see :func:`shapeloss.runs.device.find_device`.
        overwrite: label maps of another run or side may be made again.
        any_spacing: segment images of any voxel size.

    Raises:
        ValueError: the folder has label maps of another run or side that would be kept.
    """

    def __init__(
        self, run: TrainedRun, folder: Path, side_of: Mapping[str, str], device: str = "cpu",
        overwrite: bool = False, any_spacing: bool = False,
    ) -> None:  # fmt: skip
        self.run, self.folder, self.side_of, self.device, self.any_spacing = run, folder, side_of, device, any_spacing
        self.fingerprint = run.fingerprint
        remove_partial_files(folder)
        self.record = _read_record(folder, self.fingerprint, side_of, overwrite)
        """Case → which run made its label map, for which side."""
        self.where = find_device(device)
        be_deterministic(self.where)
        self.network = run.network.to(self.where)
        lay_out(self.network, run.training.memory_format)

    def predict(self, case: str, path: Path) -> tuple[Path, list[str]]:
        """Write the label map of an image: its place, and how the image differs from those of the training.

        Raises:
            VolumeError, OSError, MemoryError: there is none; :meth:`reason` says why.
        """
        run, record = self.run, self.record
        its_side = self.side_of[case]
        if run.data.mirror_to and not its_side:
            raise VolumeError(f"{path}: left or right knee? The run mirrors knees to one side; say it by --side")
        mirrored = run.data.mirror_to is not None and its_side != run.data.mirror_to
        scan = read_volume(path)
        if fault := image_fault(scan.array):
            raise VolumeError(f"{path}: {fault}")
        own, spacing = describe(scan), run.data.spacing
        if run.trained_on and not self.any_spacing and (refusal := run.trained_on.refusal(own)):
            raise VolumeError(f"{path}: {refusal}")
        if run.trained_on and spacing is None:
            spacing = run.trained_on.resample_to(own.spacing)
        ras = scan.oriented("RAS")
        grid = working_grid(ras, spacing, run.data.size, mirrored)
        image = torch.from_numpy(normalise(grid.image_to_working(ras.array), run.data.intensity))[None, None]
        with memory_errors():
            labels = predict_labels(self.network, image.to(self.where), run.training.patch_size, run.training.precision)
        labels = postprocess(labels, run.postprocessing)
        if record.pop(case, None):  # killed before the new entry, its maker is unknown rather than wrong
            write_json(self.folder / RECORD, {"maps": record})
        place = self.folder / f"{case}.nii.gz"
        write_labels_as(place, labels, scan, spacing, run.data.size, mirrored)
        made = {"run": self.fingerprint, "side": its_side, "resampled_to": list(spacing) if spacing else None}
        record[case] = made
        write_json(self.folder / RECORD, {"maps": dict(sorted(record.items()))})
        return place, _unlike(run, own, spacing)

    def reason(self, error: Exception, path: Path) -> str:
        """Why an image gave no label map, in one line with its remedy."""
        if isinstance(error, OSError):
            return one_line(f"{path}: {os_error_message(error, self.folder)}")
        if isinstance(error, MemoryError):
            return f"{path}: there is not enough memory on {self.device}; train with training.patch_size, or use cpu"
        return one_line(str(error))


def _unlike(run: TrainedRun, scan: Scan, spacing: Triple | None) -> list[str]:
    """How an image differs from those of the training, and what was done about it."""
    if run.trained_on is None:
        return []
    lines = run.trained_on.warnings(scan)
    if spacing and run.data.spacing is None:
        lines.append(f"resampled to the {size(spacing)} mm of the training, and the label map back")
    return lines


def _some(cases: list[str]) -> str:
    return ", ".join(cases[:3]) + (f", … ({len(cases)} images)" if len(cases) > 3 else "")


def _read_record(folder: Path, run: str, side_of: Mapping[str, str], overwrite: bool) -> dict[str, dict[str, Any]]:
    """Case → which run made its label map and for which side, of those that are there.

    Raises:
        ValueError: a label map would be kept that is of another run, or of another side than it is asked for; or the
            record is none.
    """
    place = folder / RECORD
    try:
        maps = json.loads(place.read_text(encoding="utf-8"))["maps"]
        record = {case: dict(made, run=str(made["run"]), side=str(made["side"])) for case, made in maps.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{place}: is not a record of predictions; remove it, or choose another folder") from error
    record = {case: made for case, made in record.items() if (folder / f"{case}.nii.gz").exists()}
    others = [
        case
        for case, made in record.items()
        if made["run"] != run or side_of.get(case, "") not in ("", made["side"])
        if not (overwrite and case in side_of)
    ]
    if others:
        shown = ", ".join(f"{case}.nii.gz" for case in others[:3]) + ", …" * (len(others) > 3)
        again = "make them again with --overwrite, or " if set(others) <= set(side_of) else ""
        raise ValueError(
            one_line(f"{folder}: holds label maps of another run or --side ({shown}); {again}choose another folder")
        )
    return record


def _describe_kept(folder: Path, cases: Iterable[str], record: Mapping[str, Any]) -> list[str]:
    """What is to be said of the label maps that are there."""
    kept = [case for case in cases if (folder / f"{case}.nii.gz").exists()]
    unknown = [case for case in kept if case not in record]
    lines = [f"{len(kept)} kept, which were there; make them again with --overwrite"] * bool(kept)
    if unknown:
        shown = ", ".join(f"{case}.nii.gz" for case in unknown[:3]) + ", …" * (len(unknown) > 3)
        lines.append(one_line(f"{len(unknown)} of them are not in {RECORD}, so their run is not known: {shown}"))
    return lines
