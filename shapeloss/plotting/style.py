"""The look of every figure: fonts, one colour per loss and per bone, colour maps, and files without dates."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from zlib import crc32

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from skimage.color import lab2rgb

from shapeloss._files import atomic

INK, GREY, PALE = "#222222", "#7A7A7A", "#D4D4D4"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.interpolation": "nearest",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text, which can be searched and edited
}
"""matplotlib's rcParams for all figures."""

LOSSES = {
    "dpce": ("Distance-penalised CE", "#D55E00"),
    "dice": ("Dice", "#0072B2"),
    "pcol": ("Confidence penalty", "#009E73"),
    "focal": ("Focal", "#CC79A7"),
    "ce": ("Cross-entropy", "#56B4E9"),
    "gdice": ("Generalised Dice", "#E69F00"),
    "unet": ("U-Net weights", "#999933"),
    "boundary": ("Boundary", "#332288"),
    "hausdorff": ("Hausdorff", "#882255"),
    "sdf": ("Signed distance", "#666666"),
    "dice_ce": ("Dice + CE", "#6699CC"),
    "dice_dpce": ("Dice + distance-penalised CE", "#AA4466"),
    "contour": ("Contour-weighted CE", "#661100"),
    "rrw": ("Region-wise", "#228833"),
    "gsl": ("Generalised surface", "#EE6677"),
    "dou": ("Boundary DoU", "#BBBBBB"),
    "tversky": ("Tversky", "#CCBB44"),
    "topk": ("Top-k CE", "#4477AA"),
    "mtl": ("Multi-task", "#BB5566"),
    "mtl_learned": ("Multi-task, learnt weights", "#7A3B8F"),
    "ce_learned": ("CE, learnt weight", "#2F6F8F"),
}
"""Key → name and colour: of the palettes of Okabe & Ito and of Tol, which colour-blind readers can tell apart."""
OTHER_LOSSES = ("#44AA99", "#DDCC77", "#AA4499", "#117733")

BONES = {"femur": "#77AADD", "tibia": "#EE8866", "patella": "#44BB99"}
OTHER_STRUCTURES = ("#EEDD88", "#99DDFF", "#FFAABB", "#BBCC33", "#AAAA00", "#DDDDDD")

PHI_MAP = "viridis"


def _even_steps(anchors: list[tuple[float, float, float]]) -> NDArray[np.float64]:
    """256 colours along a path through CIELAB anchors, in equal steps of colour difference."""
    path = PchipInterpolator(np.linspace(0, 1, len(anchors)), np.array(anchors, dtype=float))
    fine = np.linspace(0, 1, 4001)
    travelled = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path(fine), axis=0), axis=1))]
    even = np.interp(np.linspace(0, travelled[-1], 256), travelled, fine)
    return np.asarray(lab2rgb(path(even)[None])[0], dtype=np.float64)


_LARGE = [(92.0, 2.0, 9.0), (76.0, 24.0, 32.0), (56.0, 50.0, 30.0), (34.0, 42.0, -6.0), (12.0, 16.0, -20.0)]
_SMALL = [(92.0, 2.0, 9.0), (76.0, -9.0, -13.0), (56.0, -6.0, -34.0), (34.0, 10.0, -44.0), (12.0, 16.0, -30.0)]

ERROR_MAP = ListedColormap(_even_steps(_LARGE), name="error")
"""From bone through red to near black, ever darker."""
SIGNED_ERROR_MAP = ListedColormap(
    np.concatenate([_even_steps(_SMALL)[::-2], _even_steps(_LARGE)[::2]]), name="signed error"
)
"""Inside the truth blue, outside it red, ever darker from the bone colour of zero in the middle."""


def loss_color(key: str) -> str:
    """The colour of a loss; a custom loss takes one by its name, the same in each figure."""
    return LOSSES[key][1] if key in LOSSES else OTHER_LOSSES[crc32(key.encode()) % len(OTHER_LOSSES)]


def loss_name(key: str) -> str:
    """The name of a loss in figures; of `package.module:Class` the class."""
    return LOSSES[key][0] if key in LOSSES else key.rpartition(":")[2]


def structure_color(label: int, name: str) -> str:
    """The colour of a bone by its name, of another structure by its label (from 1)."""
    return BONES.get(name.lower()) or OTHER_STRUCTURES[(label - 1) % len(OTHER_STRUCTURES)]


class StyledFigure(Figure):
    """A matplotlib figure that a notebook shows as :func:`save_figure` writes it."""

    written: bytes | None = None
    """The PNG that was written last."""

    def _repr_png_(self) -> bytes:
        return self.written if self.written and not self.stale else _rendered(self, "png")


F = TypeVar("F", bound=Callable[..., Figure])


@contextmanager
def _style() -> Iterator[None]:
    """Draw in this style on matplotlib's own defaults: the user's matplotlibrc changes no figure."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def styled(function: F) -> F:
    """Let a function draw in this style, and leave the caller's as it is."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with _style():
            return function(*args, **kwargs)

    return cast(F, wrapper)


def canvas(into: SubFigure | None, width: float, height: float) -> Any:
    """A new figure of so many inches, or the part of a larger figure to draw into."""
    if into is not None:
        return into
    figure = StyledFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def color_bar(
    figure: Figure | SubFigure, shown: ScalarMappable, axes: Sequence[Axes], label: str, **options: Any
) -> Colorbar:
    """The bar of a scale that panels share, to their right."""
    bar = figure.colorbar(shown, ax=list(axes), **{"fraction": 0.03, "pad": 0.02, **options})
    bar.set_label(label)
    cast(Any, bar.outline).set_visible(False)
    return bar


def save_figure(figure: Figure, path_stem: str | Path) -> tuple[Path, Path]:
    """Write `<path_stem>.png` (200 dpi) and `<path_stem>.pdf`, each atomically; equal figures give equal bytes.

    Returns:
        The two paths.
    """
    paths = Path(f"{path_stem}.png"), Path(f"{path_stem}.pdf")
    for path in paths:
        content = _rendered(figure, path.suffix[1:])
        if isinstance(figure, StyledFigure) and path.suffix == ".png":
            figure.written = content
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    return paths


def _rendered(figure: Figure, file_format: str) -> bytes:
    """The bytes of a figure, without the dates and versions that would make each copy differ."""
    unset = {"png": ("Software",), "pdf": ("CreationDate", "Creator", "Producer")}[file_format]
    buffer = io.BytesIO()
    with _style():
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            figure.draw_without_rendering()  # lays out
            figure.set_layout_engine("none")  # or each further drawing would move everything a little
            for axes in figure.findobj(Axes):  # whose places the solver finds up to the last bits only
                axes.set_position(np.round(axes.get_position(original=True).bounds, 9), which="both")
        figure.savefig(buffer, format=file_format, dpi=200, metadata=dict.fromkeys(unset))
    return buffer.getvalue()


def require_columns(name: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """ValueError for a table without rows, or without one of the columns; `name` is the argument's."""
    absent = [column for column in columns if column not in table.columns]
    if absent or table.empty:
        raise ValueError(
            f"{name} must have rows and the columns {', '.join(columns)}; it has {len(table)} rows"
            + (f" and lacks {', '.join(absent)}" if absent else "")
        )
