"""The losses by key, and :func:`build_loss`."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from shapeloss._typing import Spacing
from shapeloss.losses.base import SegmentationLoss
from shapeloss.losses.checks import did_you_mean
from shapeloss.losses.cross_entropy import (
    ConfidencePenaltyLoss,
    CrossEntropyLoss,
    DistancePenalizedCELoss,
    FocalLoss,
    TopKCELoss,
)
from shapeloss.losses.dice import (
    DiceCELoss,
    DiceDistancePenalizedCELoss,
    DiceLoss,
    GeneralizedDiceLoss,
    TverskyLoss,
)
from shapeloss.losses.distance_based import (
    BoundaryDoULoss,
    BoundaryLoss,
    ContourWeightedCELoss,
    GeneralizedSurfaceLoss,
    HausdorffDTLoss,
    RegionWiseLoss,
    SignedDistanceLoss,
    UNetWeightedCELoss,
)
from shapeloss.losses.multi_task import MultiTaskLoss

LOSSES: dict[str, type[SegmentationLoss]] = {
    "dpce": DistancePenalizedCELoss,
    "ce": CrossEntropyLoss,
    "dice": DiceLoss,
    "pcol": ConfidencePenaltyLoss,
    "focal": FocalLoss,
    "gdice": GeneralizedDiceLoss,
    "unet": UNetWeightedCELoss,
    "boundary": BoundaryLoss,
    "hausdorff": HausdorffDTLoss,
    "sdf": SignedDistanceLoss,
    "dice_ce": DiceCELoss,
    "dice_dpce": DiceDistancePenalizedCELoss,
    "contour": ContourWeightedCELoss,
    "rrw": RegionWiseLoss,
    "gsl": GeneralizedSurfaceLoss,
    "dou": BoundaryDoULoss,
    "tversky": TverskyLoss,
    "topk": TopKCELoss,
}
"""The losses by key."""
TWO_HEADED: dict[str, type[SegmentationLoss]] = {"mtl": MultiTaskLoss}
"""Likewise, those that need a network with a second head: their input has further channels."""


def build_loss(name: str, *, num_classes: int, spacing: Spacing | None = None, **options: Any) -> nn.Module:
    """The loss of a key of `LOSSES` or `TWO_HEADED`, or of `package.module:Class` for a custom loss.

    A custom class needs `forward(logits, target, phi=None)`, also where it has no use for a map. Its constructor gets
    `num_classes` and `spacing` if it has such arguments, and the options. One that needs a map of its own derives from
    :class:`MapLoss` and has `compute_map`, `map_spec` and `compute`; the map is then computed once for each volume.

    Args:
        name: key, or `package.module:Class`.
        num_classes: K, the background included.
        spacing: mm, one number for each spatial axis.
        options: further arguments of the class.

    Raises:
        ValueError: no such key, module or class; an option that the class does not have, or a value it refuses; a class
            that cannot be called with a map.

    >>> build_loss("focal", num_classes=4, gamma=1.0).gamma
    1.0
    """
    known = LOSSES | TWO_HEADED
    cls = _custom_class(name) if ":" in name else known.get(name)
    if cls is None:
        raise ValueError(
            f"no loss {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}, "
            "and package.module:Class for a custom loss"
        )
    parameters = inspect.signature(cls).parameters
    # torch's own constructor takes **kwargs only to refuse them
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not free or cls.__init__ is nn.Module.__init__:
        for option in options:
            if option not in parameters:
                own = [key for key in parameters if key not in ("num_classes", "spacing", "args", "kwargs")]
                raise ValueError(
                    f"loss {name!r} has no option {option!r}{did_you_mean(option, own)}; "
                    f"it has {', '.join(own) or 'none'}"
                )
    given = {"num_classes": num_classes, "spacing": spacing}
    try:
        return cls(**{key: value for key, value in given.items() if key in parameters}, **options)
    except TypeError as error:
        raise ValueError(f"loss {name!r} cannot be built with {options or 'no options'}: {error}") from error


def _custom_class(name: str) -> type[nn.Module]:
    module_name, _, class_name = name.partition(":")
    place = f"beside the profile or into the working folder, {Path.cwd()}"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's file raises
        why = f"{type(error).__name__} in its module: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name}; put {module_name.replace('.', '/')}.py {place}"
        raise ValueError(f"the loss {name!r} cannot be imported: {why}") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise ValueError(
            f"the loss {name!r} does not exist: {module.__file__} has no class {class_name!r}"
            f"{did_you_mean(class_name, own)}; it has {', '.join(own) or 'none'}"
        )
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"the loss {name!r} must be a class derived from torch.nn.Module, got {cls!r}")
    call = inspect.signature(cls.forward)
    try:
        call.bind(*["self", "logits", "target", "phi"])
    except TypeError as error:
        raise ValueError(
            f"the loss {name!r} must be callable as loss(logits, target, phi), got forward{call}; "
            "derive a class from it whose forward(logits, target, phi=None) ignores phi"
        ) from error
    return cls
