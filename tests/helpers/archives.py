"""Archives of OAIZIB-CM and a server that has them."""

import hashlib
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from monai.apps import DecathlonDataset

from helpers.hub import Hub
from helpers.volumes import nifti

SHAPE = (12, 40, 40)


def five_labels(number=0):
    """OAIZIB-CM: femur 1, its cartilage 2, tibia 3, its cartilages 4 (medial, left of the other) and 5 (lateral)."""
    mask = np.zeros(SHAPE, np.uint8)
    for label in range(1, 6):
        x = {4: slice(2, 5), 5: slice(5, 8)}.get(label, slice(2, 8))
        mask[x, 3 + number : 20, 6 * label : 6 * label + 5] = label
    return mask


@pytest.fixture
def archives(tmp_path):
    """The four archives of OAIZIB-CM, with cases 1, 2 and 404, and 405; labels lie in another folder than images."""
    folder = tmp_path / "archives"
    rng = np.random.default_rng(0)
    for number in (1, 2, 404, 405):
        part = "Ts" if number > 404 else "Tr"
        image = nifti(tmp_path / f"made/oaizib_{number:03d}_0000.nii.gz", rng.integers(0, 4000, SHAPE, dtype=np.int16))
        label = nifti(tmp_path / f"made/oaizib_{number:03d}.nii.gz", five_labels(number % 3))
        folder.mkdir(exist_ok=True)
        for path, kind in ((image, "images"), (label, "labels")):
            with zipfile.ZipFile(folder / f"{kind}{part}.zip", "a") as archive:
                archive.write(path, f"{kind}{part}/{path.name}" if kind == "images" else path.name)
                archive.writestr(f"__MACOSX/{kind}{part}/{path.name}", b"not a volume")
    return folder


@pytest.fixture
def hub(archives):
    server = Hub(archives)
    yield server
    server.close()


def on_hub(hub, tmp_path, *arguments):
    """`shapeloss import oaizib` as a process of its own, with another server in place of the Hub."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "shapeloss", "import", "oaizib", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)


def seal(monkeypatch, tar):
    digest = hashlib.md5(tar.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(DecathlonDataset.md5, "Task04_Hippocampus", digest)
