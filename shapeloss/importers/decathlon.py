"""Tasks of the Medical Segmentation Decathlon, by MONAI's downloader (CC BY-SA 4.0)."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

from monai.apps import DecathlonDataset
from monai.apps.utils import check_hash, download_url

from shapeloss.data.headers import VolumeError
from shapeloss.data.layout import DatasetError, find_cases
from shapeloss.importers.archives import archive_entry, read_tar
from shapeloss.importers.folders import folder_source
from shapeloss.importers.writer import Entry, Labels, Source

LICENCE = "CC BY-SA 4.0"


def task_entries(
    task: str, folder: Path, output: Path, archive: Path | None = None, progress: bool = True
) -> tuple[dict[str, Entry], Labels, Source, list[str]]:
    """The training cases of a task, its structures, where they come from, and what is wrong.

    Args:
        task: such as Task04_Hippocampus.
        folder: where a downloaded tar is kept; one that is there is not fetched again.
        output: folder of the import, where files are extracted.
        archive: the task's tar, if it lies elsewhere.
        progress: show a bar.

    Raises:
        ValueError: no such task, a file with another hash than the one that MONAI knows, or no archive of a task.
        OSError: it cannot be downloaded.
    """
    if task not in DecathlonDataset.resource:
        raise ValueError(f"no task {task!r}; there are {', '.join(sorted(DecathlonDataset.resource))}")
    url, digest = DecathlonDataset.resource[task], DecathlonDataset.md5[task]
    tar = archive or folder / f"{task}.tar"
    if archive is None and not tar.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            download_url(url, tar, hash_val=digest, hash_type="md5", progress=progress)
        except (RuntimeError, ValueError, OSError) as error:
            raise OSError(f"{url}: cannot be downloaded ({error}); try again, or give the file by --archive") from error
    if not tar.is_file():
        raise FileNotFoundError(f"{tar}: there is no such archive; check the name, and that the folder can be written")
    if not check_hash(tar, digest, "md5"):
        raise VolumeError(f"{tar}: its MD5 is not {digest}, that of {task}; delete it and download it from {url}")
    # without the top folder, whatever its name
    members = {str(PurePosixPath(*PurePosixPath(name).parts[1:])): m for name, m in read_tar(tar, digest).items()}
    if "dataset.json" not in members:
        raise VolumeError(f"{tar}: holds no dataset.json; is it the archive of a task?")
    with tempfile.TemporaryDirectory(prefix="shapeloss-") as description:
        members["dataset.json"].extract(Path(description) / "dataset.json")
        try:
            classes, files, faults = find_cases(Path(description))
        except DatasetError as error:
            raise DatasetError(tar, error.problems) from error
        own = folder_source(Path(description))
    entries, problems = {}, [f"{tar}: {fault}" for fault in faults]
    for name, pair in files.items():
        missing = [path for path in pair if path not in members]
        problems += [f"{tar}: holds no {path}, which its dataset.json lists; get another copy" for path in missing]
        if not missing:
            entries[name] = archive_entry(members[pair[0]], members[pair[1]], output)
    return entries, Labels(classes, complete=True), Source(task, f"MD5 {digest}", LICENCE, url, own.modality), problems
