"""Types that several parts share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Spacing = Sequence[float]
"""mm between the centres of neighbouring voxels, one number for each axis."""
