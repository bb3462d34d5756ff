"""The pictures of the workshop, and panels whose sliders redraw one; static where there is nobody to move a slider."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from shapeloss.distance import boundary_distance
from shapeloss.plotting.style import LOSSES, OTHER_LOSSES, canvas, styled
from shapeloss.workshop.predictions import Labels

STATIC = "SHAPELOSS_STATIC"
"""If this variable of the environment is set, panels are pictures: for pages and print."""
PULL_MAP = "inferno"


def outline(ax: Axes, labels: Labels, colour: str = "white", width: float = 1.0) -> None:
    """The outline of every structure of a slice (Y, Z), as `ax.imshow(slice.T, origin="lower")` shows it."""
    for k in np.unique(labels):
        if k:
            ax.contour((labels == k).T.astype(float), [0.5], colors=colour, linewidths=width)


@styled
def figure_maps(
    maps: Mapping[str, NDArray[Any]],
    spacing: Sequence[float],
    *,
    labels: Labels | None = None,
    unit: str = "",
    one_scale: bool = True,
    colours: str = PULL_MAP,
) -> Figure:
    """Maps of one slice, three in a row: title → (Y, Z).

    Args:
        spacing: mm along both axes.
        labels: the truth of the slice, drawn as an outline.
        unit: of the colour bar.
        one_scale: one colour bar for all, or one for each.
    """
    rows, columns = -(-len(maps) // 3), min(3, len(maps))
    figure = canvas(None, 3.4 * columns + 0.4, 3.4 * rows)
    figure.set_layout_engine("none")  # a fifth faster when a slider moves
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    limits: dict[str, float] = {}
    if one_scale:
        limits["vmin"] = min(0.0, *(float(np.nanmin(values)) for values in maps.values()))
        limits["vmax"] = max(float(np.nanmax(values)) for values in maps.values())
    for ax, (title, values) in zip(axes, maps.items(), strict=False):
        shown = ax.imshow(np.asarray(values).T, origin="lower", cmap=colours, aspect=spacing[1] / spacing[0], **limits)
        ax.set_title(title, fontsize=10)
        if labels is not None:
            outline(ax, labels, "#ffffffaa")
        if not one_scale:
            figure.colorbar(shown, ax=ax, shrink=0.7, label=unit)
    for ax in axes:
        ax.set_axis_off()
    if one_scale:
        figure.colorbar(shown, ax=axes, shrink=0.8, label=unit)
    return figure


@styled
def figure_prediction(
    image: NDArray[Any], truth: Labels, prediction: Labels, spacing: Sequence[float], title: str = ""
) -> Figure:
    """A slice with the prediction in colour and the truth's outline in white."""
    figure = canvas(None, 4.2, 3.6)
    ax = figure.subplots()
    aspect = spacing[1] / spacing[0]
    ax.imshow(image.T, origin="lower", cmap="gray", aspect=aspect)
    shown = np.ma.masked_equal(prediction, 0).T
    ax.imshow(shown, origin="lower", cmap="Set2", alpha=0.55, vmin=1, vmax=8, aspect=aspect)
    outline(ax, truth, "white", 1.4)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
    return figure


@styled
def figure_profiles(
    weights: Mapping[str, NDArray[Any]], labels: Labels, spacing: Sequence[float], reach: float = 20.0
) -> Figure:
    """Mean weight against the signed distance from the boundary in mm, one line for each map."""
    signed = boundary_distance(labels, spacing) * np.where(np.asarray(labels) > 0, -1, 1)
    edges = np.arange(-reach - 1, reach + 2, 2.0)  # bins of 2 mm about even distances, the same on both sides
    middles = (edges[:-1] + edges[1:]) / 2
    bins = np.digitize(signed.ravel(), edges)
    figure = canvas(None, 8, 3.6)
    ax = figure.subplots()
    for number, (name, weight) in enumerate(weights.items()):
        values = np.asarray(weight).ravel()
        means = [values[bins == n].mean() if (bins == n).any() else np.nan for n in range(1, len(edges))]
        # dashes and dots too: lines that lie on each other stay visible
        ax.plot(middles, means, ("-", "--", "-.", ":")[number % 4], label=name)
    ax.axvline(0, color="#7A7A7A", linewidth=0.8)
    ax.set_xlabel("distance from the boundary, mm (inside below 0)")
    ax.set_ylabel("weight 1 + φ")
    ax.legend(fontsize=9, ncols=2)
    return figure


@styled
def figure_curves(curves: pd.DataFrame, window: int = 10) -> Figure:
    """Training loss over steps, each divided by its own first value, since losses have no common unit."""
    figure = canvas(None, 7, 3.2)
    ax = figure.subplots()
    others = iter(OTHER_LOSSES * 3)
    for name in curves:
        smooth = curves[name].dropna().rolling(window, min_periods=1).mean()
        _, colour = LOSSES.get(str(name), ("", next(others)))
        ax.plot(smooth.index, smooth / smooth.iloc[0], label=name, color=colour)
    ax.set_xlabel("step")
    ax.set_ylabel("training loss / its start")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=9)
    return figure


def png(figure: Figure, dpi: int = 80) -> bytes:
    """The picture as PNG."""
    figure.set_dpi(dpi)
    drawing = FigureCanvasAgg(figure)
    drawing.draw()  # once: savefig draws everything twice
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(drawing.buffer_rgba())).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def panel(draw: Callable[..., Figure], **controls: Any) -> Any:
    """A picture with sliders: `draw(**values)` is called with the value of each control when one moves.

    Args:
        draw: returns a figure.
        controls: name → (lowest, highest, step, start) for a slider, or a list of choices whose first is the start.

    Returns:
        A widget; a picture of the start where widgets cannot be used.
    """
    from IPython import display

    start = {name: spec[0] if isinstance(spec, list) else spec[3] for name, spec in controls.items()}
    if os.environ.get(STATIC):
        return display.Image(data=png(draw(**start), dpi=110))
    import ipywidgets as widgets

    picture = widgets.Image(value=png(draw(**start)), format="png")
    inputs: dict[str, Any] = {}
    for name, spec in controls.items():
        label = name.replace("_", " ")
        common = {"description": label, "style": {"description_width": "7em"}, "layout": {"width": "22em"}}
        if isinstance(spec, list):
            inputs[name] = widgets.Dropdown(options=spec, value=spec[0], **common)
        else:
            low, high, step, value = spec
            kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
            inputs[name] = kind(min=low, max=high, step=step, value=value, **common)

    def redraw(_: Any) -> None:
        picture.value = png(draw(**{name: control.value for name, control in inputs.items()}))

    for control in inputs.values():
        control.observe(redraw, "value")
    beside = widgets.Layout(flex_flow="row wrap", align_items="flex-start")
    return widgets.Box([widgets.VBox(list(inputs.values())), picture], layout=beside)


class LiveCurves:
    """Curves that are redrawn while a training runs: pass it as `progress` to :func:`train_beside`."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, name: str, curves: pd.DataFrame) -> None:
        from IPython import display

        picture = display.Image(data=png(figure_curves(curves)))
        if self._handle is None:
            self._handle = display.display(picture, display_id=True)
        else:
            self._handle.update(picture)
