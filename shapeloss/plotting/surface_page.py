"""Figure 1 in three dimensions: the surfaces of one case as a page that turns them, without a network.

The page draws with the browser's own WebGL 2, in some 300 lines (`surface_viewer/`), and not with a library: three.js
alone has 0.7 MB, vtk.js 2 MB and Plotly 4.5 MB, more than the meshes of six sets of bones, and what makes the page
(the value under the pointer, two losses in one camera, one scale, the table) would have to be written all the same.

Meshes are reduced (quadric error, :func:`reduce_surface`), their points and errors rounded to `STEP_MM`, and packed by
:func:`pack`. The value that the page shows under the pointer is interpolated linearly (barycentrically) in the
foremost triangle there, between the errors of its three corners.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyvista as pv
from matplotlib.colors import Colormap, to_hex, to_rgb
from numpy.typing import NDArray
from PIL import Image

from shapeloss.plotting.style import ERROR_MAP, SIGNED_ERROR_MAP, loss_color, loss_name, structure_color
from shapeloss.plotting.surface_maps import error_limit

TRIANGLES = 40_000
"""Of all structures of a case together, after reduction."""
STEP_MM = 0.005
"""Points and errors are multiples of this, unless the case is too large for that (beyond 160 mm of error)."""
STATISTICS = {"mean_mm": "mean", "p95_mm": "95th percentile", "max_mm": "maximum"}
TRUTH = "truth"
VIEWS = {"posterior": (0, 0), "anterior": (180, 0), "right": (90, 0), "left": (-90, 0), "superior": (0, 90),
         "inferior": (0, -90)}  # fmt: skip
"""Name → degrees around the vertical axis, from behind to the right, and degrees of elevation."""
FILES = Path(__file__).resolve().parent / "surface_viewer"
WIDEST = 1400  # pixels of the picture


def reduce_surface(mesh: pv.PolyData, share: float) -> pv.PolyData:
    """A mesh with about this share of the triangles, where it changes the shape least; its normals keep their side."""
    if share >= 1 or mesh.n_points == 0:
        return pv.PolyData.from_regular_faces(mesh.points, mesh.regular_faces) if mesh.n_points else pv.PolyData()
    return mesh.decimate(1 - share, volume_preservation=True)


def deviation(
    full: pv.PolyData, reduced: pv.PolyData, error_of: Callable[[pv.PolyData], NDArray]
) -> NDArray[np.float64]:
    """What the reduction of a mesh changes, at its vertices: at 2000 of them where there are more.

    Args:
        full: the mesh.
        reduced: what :func:`reduce_surface` made of it.
        error_of: from the points of a mesh to a value in mm for each of them.

    Returns:
        (at most 2000, 2): mm from the vertex to the reduced surface, and the absolute difference between the value
        there, interpolated as the page does, and that of the vertex.
    """
    bare = pv.PolyData.from_regular_faces(reduced.points, reduced.regular_faces)
    some = np.unique(np.linspace(0, full.n_points - 1, min(full.n_points, 2000)).astype(int))
    places = full.points[some]
    triangle, nearest = bare.find_closest_cell(places, return_closest_point=True)
    corners = bare.regular_faces[triangle]
    a, b, c = (np.asarray(bare.points, dtype=np.float64)[corners[:, k]] for k in range(3))
    opposite = [np.linalg.norm(np.cross(v - nearest, w - nearest), axis=1) for v, w in ((b, c), (c, a), (a, b))]
    weights = np.stack(opposite, axis=1)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    values = (weights * error_of(reduced)[corners]).sum(axis=1)
    off = np.abs(values - error_of(pv.PolyData(places)))
    return np.stack([np.linalg.norm(nearest - places, axis=1), off], axis=1)


def pack(values: NDArray[np.integer[Any]]) -> str:
    """Integers (n, columns) of 16 bits as text: differences along each column, low bytes first, deflated, base 64."""
    values = np.asarray(values, dtype=np.int64).reshape(len(values), -1)
    if values.size and not -32768 <= values.min() <= values.max() <= 65535:
        raise ValueError(f"values must fit 16 bits, got {values.min()} … {values.max()}")
    steps = np.diff(values, axis=0, prepend=0).astype("<u2").T.tobytes()
    planes = np.frombuffer(steps, np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def unpack(text: str, columns: int) -> NDArray[np.uint16]:
    """The inverse of :func:`pack`, as the page does it: (n, columns) uint16; `.view(np.int16)` gives signed ones."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1)
    steps = np.ascontiguousarray(planes.T).view("<u2").reshape(columns, -1).T
    return np.cumsum(steps, axis=0, dtype=np.uint16)


def surface_page(
    meshes: Mapping[str, Mapping[str, pv.PolyData]],
    regions: Mapping[str, Sequence[str]],
    table: pd.DataFrame,
    case: str,
    picture: str | Path,
    right_is: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        meshes: `TRUTH`, then each loss → structure → its reduced surface in world mm (RAS) with the point arrays
            `error_mm` (signed; of the truth 0) and `region` (index in `regions`); without points where it is missed.
        regions: structure → names of its regions.
        table: columns `case`, `loss`, `structure`, `region` and those of `STATISTICS`, of all test cases.
        case: the one that the meshes show.
        picture: a PNG for print, and where a browser has no WebGL 2.
        right_is: `medial` or `lateral`: what the patient's right is for this knee, if it is known.
        notes: sentences below the page: where regions and data come from.

    Raises:
        ValueError: for no loss, a mesh without one of the arrays, or a table without the case.
    """
    losses = [name for name in meshes if name != TRUTH]
    found = [mesh for part in meshes.values() for mesh in part.values() if mesh.n_points]
    if TRUTH not in meshes or not losses or not found:
        raise ValueError(f"meshes must hold {TRUTH!r} and at least one loss, with surfaces; got {', '.join(meshes)}")
    if any(array not in mesh.point_data for mesh in found for array in ("error_mm", "region")):
        raise ValueError("each of meshes must have the point arrays 'error_mm' and 'region'")
    if case not in set(table["case"]):
        raise ValueError(f"table must have rows of the case that is shown, {case}")
    points = np.concatenate([mesh.points for mesh in found])
    largest = max(float(np.abs(mesh["error_mm"]).max()) for mesh in found)
    origin = points.min(axis=0)
    step = max(STEP_MM, largest / 32767, float(np.ptp(points, axis=0).max()) / 65535)
    shown = np.concatenate([mesh.points for mesh in meshes[TRUTH].values() if mesh.n_points])
    data = {
        "case": case,
        "origin": origin.tolist(),
        "step": step,
        "bounds": [shown.min(axis=0).tolist(), shown.max(axis=0).tolist()],
        "limit": error_limit([mesh["error_mm"] for name in losses for mesh in meshes[name].values() if mesh.n_points]),
        "views": _views(right_is),
        "palettes": [_palette(ERROR_MAP), _palette(SIGNED_ERROR_MAP)],
        "structures": [
            {"name": name, "regions": list(names), "colors": _shades(structure_color(label, name), len(names))}
            for label, (name, names) in enumerate(regions.items(), start=1)
        ],
        "surfaces": [
            {"key": key, "name": _name(key), "color": _color(key), "meshes": [
                _packed(meshes[key].get(name, pv.PolyData()), origin, step) for name in regions
            ]}
            for key in meshes
        ],
    }  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FILES), autoescape=True, undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        case=case,
        losses={key: _name(key) for key in losses},
        statistics=STATISTICS,
        tables=_tables(table, case, losses),
        cases=table["case"].nunique(),
        notes=notes,
        step=f"{step:.3g}",
        picture=_picture(Path(picture)),
        # "<" inside a JSON string could close the script element
        data_json=json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        style=(FILES / "style.css").read_text(encoding="utf-8"),
        script=(FILES / "viewer.js").read_text(encoding="utf-8"),
    )


def _name(key: str) -> str:
    return "Truth" if key == TRUTH else loss_name(key)


def _color(key: str) -> str:
    return "#222222" if key == TRUTH else loss_color(key)


def _views(right_is: str) -> dict[str, tuple[int, int]]:
    """Right and left by their side of this knee, if that is known."""
    other = {"medial": "lateral", "lateral": "medial"}
    names = {"right": right_is, "left": other[right_is]} if right_is else {}
    return {names.get(name, name): angles for name, angles in VIEWS.items()}


def _palette(colors: Colormap) -> str:
    """256 colours as text: red, green, blue of each."""
    return base64.b64encode((colors(np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes()).decode()


def _shades(color: str, count: int) -> list[str]:
    """So many shades of a colour, from dark to light."""
    base = np.array(to_rgb(color))
    mixes = np.linspace(-0.45, 0.55, count) if count > 1 else [0.0]
    return [to_hex(tuple(base * (1 + mix) if mix < 0 else base + (1 - base) * mix)) for mix in mixes]


def _packed(mesh: pv.PolyData, origin: NDArray, step: float) -> dict[str, str]:
    """Points, triangles, errors and regions of a mesh."""
    if mesh.n_points == 0:
        return {"points": "", "triangles": "", "errors": "", "regions": ""}
    triangles = np.asarray(mesh.regular_faces)
    triangles = triangles[np.argsort(triangles.min(axis=1), kind="stable")]  # neighbours in turn pack better
    return {
        "points": pack(np.round((mesh.points - origin) / step).astype(np.int64)),
        "triangles": pack(triangles),
        "errors": pack(np.round(mesh["error_mm"] / step).astype(np.int64)),
        "regions": pack(np.asarray(mesh["region"])),
    }


def _tables(table: pd.DataFrame, case: str, losses: Sequence[str]) -> list[dict[str, Any]]:
    """A table for each statistic, of the case shown and of all: rows of structure, region and a text for each loss."""
    places = table[["structure", "region"]].drop_duplicates().to_numpy().tolist()
    tables = []
    for scope, rows in (("case", table[table["case"] == case]), ("all", table)):
        for column in STATISTICS:
            groups = rows.groupby(["structure", "region", "loss"])[column]
            texts = {key: _text(values) for key, values in groups}
            lines = [
                {"structure": s, "region": r, "values": [texts.get((s, r, loss), "–") for loss in losses]}
                for s, r in places
            ]
            tables.append({"scope": scope, "statistic": column, "lines": lines})
    return tables


def _text(values: pd.Series) -> str:
    """One value, or mean ± SD of several; how often the structure was missed, which no mean can hold."""
    known = values[np.isfinite(values)]
    missed = len(values) - len(known)
    if known.empty:
        return "missed"
    text = f"{known.mean():.2f}" + (f" ± {known.std(ddof=1):.2f}" if len(known) > 1 else "")
    return text + (f" ({missed} missed)" if missed else "")


def _picture(path: Path) -> str:
    """A PNG as a smaller WebP inside a data address."""
    packed = io.BytesIO()
    with Image.open(path) as image:
        smaller = image.convert("RGB")
        smaller.thumbnail((WIDEST, 10 * WIDEST))
        smaller.save(packed, "WEBP", quality=85, method=4)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
