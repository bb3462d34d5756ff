"""`shapeloss import …`: one command per source."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shapeloss.data.options import DataSource
    from shapeloss.importers.writer import Entry, Labels, Source

app = typer.Typer(help="Bring data into the layout that everything here reads.", no_args_is_help=True)

Output = Annotated[Path, typer.Argument(help="Folder for the data set: a new one, or that of an earlier import.")]
LabelsText = Annotated[str, typer.Option("--labels", help="Structures to keep, such as 1:femur,3:tibia.")]
RemapText = Annotated[str, typer.Option("--remap", help="Labels to merge first, such as 7:1,8:3.")]
LicenceText = Annotated[str, typer.Option("--licence", help="Licence of the data, for the record.")]
MaskOrientation = Annotated[
    str, typer.Option(help="Where the axes of label maps without a pose run to, such as PIR. Never guessed.")
]
Profile = Annotated[Path | None, typer.Option(help="Take what is not given here from data.source of this profile.")]


@app.command()
def oaizib(
    output: Output,
    archives: Annotated[Path | None, typer.Option(help="Folder with the zip files, if they are there.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch whole archives into --archives.")] = False,
    cases: Annotated[str, typer.Option(help="Numbers, such as 1,5,400-404. Default: the profile's 40.")] = "",
    labels: LabelsText = "",
    remap: RemapText = "",
    accept: Annotated[bool, typer.Option("--accept-licence", help="Accept CC BY-NC 4.0 without being asked.")] = False,
    profile: Profile = None,
) -> None:
    """OAIZIB-CM: real OAI DESS knees with femur and tibia, from the Hugging Face Hub or from archives."""
    from shapeloss.importers import oaizib_cm

    section = profile_source(profile, "oaizib")
    chosen = choose_labels(labels, remap, section, oaizib_cm.LABELS)
    text = cases or (section.cases if section else "")
    numbers = oaizib_cm.parse_cases(text) if text else oaizib_cm.default_cases()
    accept_licence(output, oaizib_cm.SOURCE, chosen, accept)
    finish(output, *oaizib_cm.find_entries(numbers, output, archives, download), chosen, oaizib_cm.SOURCE)


@app.command()
def oai(
    tree: Annotated[Path, typer.Argument(help="Folder with DICOM slices: <visit>/<site>/<participant>/…")],
    output: Output,
    masks: Annotated[Path | None, typer.Option(help="Folder of label maps. Without: images alone, to predict.")] = None,
    visit: Annotated[str, typer.Option(help="Only this one: 00m, 12m, 24m, …")] = "",
    participants: Annotated[Path | None, typer.Option(help="Text file with the participants to import.")] = None,
    echo: Annotated[str, typer.Option(help="Of several echoes: 1, 2, …, or rss, the root of their squares' sum.")] = "",
    mask_orientation: MaskOrientation = "",
    labels: LabelsText = "",
    remap: RemapText = "",
    profile: Profile = None,
) -> None:
    """DESS knees of the Osteoarthritis Initiative, from DICOM slices of your own access."""
    from shapeloss.data.poses import check_orientation
    from shapeloss.importers import oai as source

    section = profile_source(profile, "oai")
    chosen = choose_labels(labels, remap, section, source.LABELS)
    only = source.read_participants(participants) if participants else ()
    code = check_orientation(mask_orientation)
    found = source.find_entries(tree, masks, visit, only, echo=echo.lower(), mask_orientation=code)
    finish(output, *found, chosen, source.SOURCE)


@app.command()
def decathlon(
    task: Annotated[str, typer.Argument(help="Such as Task04_Hippocampus.")],
    output: Output,
    archive: Annotated[Path | None, typer.Option(help="The task's tar, if it is there.")] = None,
    labels: LabelsText = "",
    remap: RemapText = "",
    profile: Profile = None,
) -> None:
    """A task of the Medical Segmentation Decathlon, downloaded and checked by its hash."""
    from shapeloss.importers.decathlon import task_entries

    section = profile_source(profile, "decathlon")
    entries, own, source, problems = task_entries(task, output.absolute().parent, output, archive)
    finish(output, entries, problems, choose_labels(labels, remap, section, own), source)


@app.command()
def folder(
    source: Annotated[Path, typer.Argument(help="A folder in Decathlon or nnU-Net layout.")],
    output: Output,
    labels: LabelsText = "",
    remap: RemapText = "",
    licence: LicenceText = "",
    mask_orientation: MaskOrientation = "",
    profile: Profile = None,
) -> None:
    """A folder that has such a layout: to choose structures, to convert formats, and for the record."""
    from shapeloss.data.poses import check_orientation
    from shapeloss.importers.folders import folder_entries, folder_source

    section, notes = profile_source(profile, "folder"), list[str]()
    entries, own, problems = folder_entries(
        source, choose_remap(remap, section), notes, check_orientation(mask_orientation)
    )
    chosen = choose_labels(labels, remap, section, own)
    print("".join(f"{note}\n" for note in notes), end="")
    finish(output, entries, problems, chosen, folder_source(source, licence))


@app.command()
def pairs(
    images: Annotated[Path, typer.Argument(help="Folder of images: NIfTI, NRRD, MetaImage.")],
    masks: Annotated[Path, typer.Argument(help="Folder of label maps with the same names.")],
    output: Output,
    labels: LabelsText = "",
    remap: RemapText = "",
    licence: LicenceText = "",
    mask_orientation: MaskOrientation = "",
    profile: Profile = None,
) -> None:
    """Two folders of images and label maps, matched by name; --labels names the structures."""
    from shapeloss.data.layout import read_names
    from shapeloss.data.poses import check_orientation
    from shapeloss.importers.folders import folder_source, pair_entries

    section, notes = profile_source(profile, "pairs"), list[str]()
    chosen = choose_labels(labels, remap, section, None)
    check_labels(chosen, *read_names(masks, chosen.merge))
    entries, problems = pair_entries(images, masks, notes, check_orientation(mask_orientation))
    print("".join(f"{note}\n" for note in notes), end="")
    finish(output, entries, problems, chosen, folder_source(images, licence, masks))


def profile_source(profile: Path | None, kind: str) -> DataSource | None:
    """The section `data.source` of a profile, if one was given.

    Raises:
        ValueError: it is meant for another command.
    """
    if profile is None:
        return None
    from shapeloss.replication.profile import load_experiment

    section = load_experiment(profile).data.source
    if section is None or section.kind != kind:
        expected = f"its data come by: shapeloss import {section.kind}" if section else "it has no section data.source"
        raise ValueError(f"{profile} is not a profile for shapeloss import {kind}; {expected}")
    return section


def choose_labels(labels: str, remap: str, section: DataSource | None, default: Labels | None) -> Labels:
    """The structures to keep: as the command says, else as the profile says, else the source's own.

    Raises:
        ValueError: nobody names any, or the names contradict those that a source declares.
    """
    from shapeloss.data.names import parse_labels
    from shapeloss.importers.writer import Labels

    names: Mapping[int, str] = parse_labels(labels) if labels else section.labels if section else {}
    if not names and default is None:
        raise ValueError("name the structures to keep, such as --labels 1:femur,3:tibia")
    merge = choose_remap(remap, section)
    complete = not names and default is not None and default.complete
    chosen = Labels(names or (default.names if default else {}), merge or (default.merge if default else {}), complete)
    if default is not None and default.complete:
        check_labels(chosen, "dataset.json", default.names)
    return chosen


def choose_remap(remap: str, section: DataSource | None) -> Mapping[int, int]:
    """The labels to merge: as the command says, else as the profile says."""
    from shapeloss.data.names import parse_remap

    return parse_remap(remap) if remap else section.remap if section else {}


def check_labels(chosen: Labels, place: Path | str | None, declared: Mapping[int, str]) -> None:
    """Do the names given by hand mean the same as those of a data set?

    Raises:
        ValueError: a name belongs to another label there.
    """
    from shapeloss.data.layout import contradiction

    if wrong := contradiction(chosen.names, declared, chosen.merge):
        raise ValueError(f"--labels contradicts {place}: {wrong}; correct --labels")


def accept_licence(output: Path, source: Source, labels: Labels, accepted: bool) -> None:
    """Say the licence and ask for its acceptance, once for an output folder, whose record keeps the answer.

    Raises:
        ValueError: it was not accepted.
    """
    from shapeloss._files import write_json
    from shapeloss.data.manifest import IMPORT_RECORD
    from shapeloss.importers.writer import exclusive_import, open_record

    record = open_record(output, source, labels)
    if record.get("licence_accepted") == source.licence:
        return
    print(f"{source.name} is licensed under {source.licence}: {source.url}")
    if not accepted:
        try:
            accepted = typer.confirm("Do you accept the licence?")
        except typer.Abort:  # nobody is there to answer
            print()
    if not accepted:
        raise ValueError(f"the licence of {source.name} was not accepted; answer y, or add --accept-licence")
    with exclusive_import(output):  # which may have waited for an import that changed the record
        record = open_record(output, source, labels)
        write_json(output / IMPORT_RECORD, record | {"licence_accepted": source.licence})


def finish(output: Path, entries: Mapping[str, Entry], problems: Sequence[str], labels: Labels, source: Source) -> None:
    """Import the cases, and say what comes next."""
    from shapeloss.importers.writer import write_cases

    cases = write_cases(output, entries, labels, source, problems)["cases"]
    images = sum("label" not in case for case in cases.values())
    kinds = [f"{len(cases) - images} cases with {', '.join(labels.names.values())}"] if images < len(cases) else []
    kinds += [f"{images} images without label maps"] if images else []
    print(f"{' and '.join(kinds)} in {output}, licence: {source.licence}")
    for note, count in Counter(filter(None, map(choices, cases.values()))).items():
        print(f"{note}: {count} case{'s' if count > 1 else ''}")
    if images < len(cases):
        print(f"Next: make reproduce PROFILE=<name> DATA={shlex.quote(str(output.absolute()))}")
    if images:
        folder = shlex.quote(str(output.absolute() / "imagesTs"))
        print(f"Next: shapeloss predict results/<profile>/runs/<loss>/seed<n> {folder} <new folder>")


def choices(case: Mapping[str, Any]) -> str:
    """What an import was told of a case, as its record has it; empty if nothing."""
    parts = []
    if taken := case.get("echo"):
        times = ", ".join(f"{number}{f' at {time:g} ms' if time else ''}" for number, time in case["echoes_ms"].items())
        which = "root of the sum of squares" if taken == "rss" else f"echo {taken}"
        parts.append(f"echoes found: {times}; taken: {which}")
    if code := case.get("mask_orientation"):
        parts.append(f"label map without a pose, taken as {code}")
    return "; ".join(parts)
