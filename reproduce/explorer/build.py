"""The explorer: `figures/explorer.html`, one page that works from disk, without a network and without an installation.

The slice, its truth and all scripts are inside the page. `core.js` computes, `page.js` shows, `questions.yaml` guides.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import yaml
from matplotlib.colors import to_rgb

from shapeloss._files import write_text
from shapeloss.phantom.anatomy import BONES
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.knee import make_knee
from shapeloss.plotting.style import BONES as COLOURS

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "figures" / "explorer.html"
SUBJECT = 3
OPTIONS = PhantomOptions(shape=(9, 160, 176), spacing=(3.0, 0.8, 0.8), noise=0.02, reader_mm=0.6)
SLICE = 4
ISLAND = (30, 24)
"""Row and column of the false island: soft tissue, far from every bone."""


def page_data() -> dict[str, object]:
    """What the page holds besides its scripts: grey values and labels of the slice, colours, questions."""
    knee = make_knee(SUBJECT, OPTIONS)
    # as radiologists look at it: superior at the top, anterior on the left
    image, labels = (array[SLICE].T[::-1, ::-1] for array in (knee.image, knee.labels))
    low, high = np.percentile(image, [1, 99.5])
    grey = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    palette = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    rows, columns = labels.shape
    thickness, across, up = OPTIONS.spacing
    return {
        "rows": rows,
        "columns": columns,
        "spacing": [up, across],
        "thickness": thickness,
        "structures": list(BONES),
        "colours": [[round(255 * part) for part in to_rgb(COLOURS[bone])] for bone in BONES],
        "island": ISLAND,
        "image": _text(grey),
        "labels": _text(labels.astype(np.uint8)),
        "palette": _text(palette),
        "questions": yaml.safe_load((HERE / "questions.yaml").read_text(encoding="utf-8")),
        "source": f"slice {SLICE} of the phantom knee {SUBJECT}, {rows} × {columns} voxels of {up} × {across} mm, "
        f"its outline drawn by a reader (SD {OPTIONS.reader_mm} mm about the exact surface).",
    }


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def build_page() -> str:
    """The page as text."""
    data = page_data()
    parts = {name: (HERE / file).read_text(encoding="utf-8") for name, file in FILES.items()}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    # "<" inside a JSON string could close the script element
    data_json = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8")).render(
        data=data, data_json=data_json, **parts
    )


FILES = {"style": "style.css", "core": "core.js", "page": "page.js"}


def main() -> None:
    write_text(PAGE, build_page())
    print(f"{PAGE.relative_to(HERE.parents[1])}: {PAGE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
