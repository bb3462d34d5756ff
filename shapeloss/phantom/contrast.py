"""Grey values of the phantom: DESS with water excitation, composited tissue by tissue from distance fields.

Cartilage and fluid are bright, muscle is intermediate, fat and marrow are suppressed, cortex, menisci and tendons are
dark. A voxel that a boundary cuts gets its share of each side: coverage = clip(1/2 − d/w, 0, 1), where d is the signed
distance of the voxel's centre and w the voxel's width along the gradient, both in mm. Point spread, bias field and
Rician noise come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import ndimage

from shapeloss.phantom.anatomy import (
    Anatomy,
    Array,
    Bone,
    Coordinates,
    Femur,
    Tibia,
    Waves,
    capsule,
    draw_waves,
    ellipse,
    select,
    smooth_max,
    smooth_min,
    smooth_step,
    to_bone,
    to_world,
)

Voxels = Annotated[int, Field(ge=4)]
Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Signal relative to cartilage's, about as in DESS with water excitation.
CARTILAGE, CORTEX, MARROW, SCAR = 1.0, 0.05, 0.25, 0.17
SKIN, FAT, MUSCLE, TENDON, MENISCUS, FLUID, VESSEL = 0.40, 0.27, 0.50, 0.08, 0.09, 1.15, 0.95
GAIN = 300.0  # grey values per unit of signal

# Muscles as capsules in the femur's frame, mm: start, end, radius at each, flattening along x, signal.
_MUSCLES = (
    ((-31, 6, 40), (-20, 18, 115), 9, 32, 0.9, 0.98),  # vastus medialis
    ((35, 8, 48), (26, 14, 115), 7, 32, 0.9, 1.03),  # vastus lateralis
    ((1, 29, 62), (2, 33, 115), 4, 19, 1.8, 0.94),  # vastus intermedius and rectus femoris
    ((-27, -40, -4), (-20, -46, 115), 6, 24, 0.9, 1.05),  # semimembranosus
    ((-15, -60, 15), (-6, -62, 115), 3, 16, 1.2, 0.97),  # semitendinosus
    ((39, -28, 0), (24, -44, 115), 6, 26, 0.8, 1.0),  # biceps femoris
    ((-43, -20, -25), (-40, -20, 115), 5, 14, 0.6, 1.06),  # sartorius and gracilis
    ((-20, -35, 32), (-20, -56, -75), 8, 28, 1.0, 0.96),  # gastrocnemius, medial head
    ((22, -33, 29), (20, -52, -75), 8, 26, 1.0, 1.02),  # gastrocnemius, lateral head
    ((4, -26, -16), (-6, -28, -90), 7, 26, 1.6, 0.92),  # popliteus and soleus
    ((31, -4, -28), (25, 0, -90), 5, 22, 0.9, 1.04),  # tibialis anterior and extensors
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PhantomOptions:
    """The grid and the difficulty of the phantom's images."""

    shape: tuple[Voxels, Voxels, Voxels] = (24, 72, 96)
    """Voxels along X (left to right), Y (posterior to anterior) Z (inferior to superior). OAI DESS: 160, 384, 384."""
    spacing: tuple[Millimetres, Millimetres, Millimetres] = (4.0, 1.5, 1.5)
    """mm in the same order. OAI DESS: 0.7, 0.365, 0.365."""
    noise: Amount = 0.04
    """SD of the noise in either channel of the Rician noise, relative to cartilage's signal."""
    bias: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Relative amplitude of the smooth, multiplicative bias field."""
    blur_mm: Amount = 0.0
    """Full width at half maximum of a point spread beyond the voxel's own, in mm."""
    edge_contrast: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Contrast at the bones' edges: 1 as in DESS; lower, and patches of the edges fade into the marrow's grey."""
    cortex_mm: Amount = 0.9
    """Mean thickness of the dark cortex in mm; along the surface it varies from a fifth to twice that."""
    texture: Amount = 0.06
    """RMS of the texture of marrow, muscle and fat, relative to cartilage's signal."""
    vessels: Amount = 1.0
    """Bright tubes behind, along and inside the bones: 1 as usual, more for wider ones, 0 for none."""
    reader_mm: Amount = 0.0
    """SD in mm of drawn outlines about the true surfaces (between two trained readers: 0.3 to 0.6); 0: exact labels."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) voxel index → world mm (RAS); the world's origin is the centre of the field of view."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = -(np.asarray(self.shape) - 1) / 2 * np.asarray(self.spacing)
        return affine


@plain_dataclass(frozen=True)
class Tissue:
    """What a subject's image shows beside the shape of the bones; like the anatomy, it knows of no grid."""

    cortex: Waves  # thickness
    cartilage: Waves  # thickness
    lost: Waves  # where edges fade when `edge_contrast` is low; also the outline of the muscles
    shift: Waves  # how far the faded band lies off the edge
    oedema: Waves  # bright patches of marrow
    marrow: Waves  # trabecular texture
    soft: Waves  # texture of muscle and fat
    bias: Waves
    cartilage_mm: float
    effusion_mm: float
    gain: float
    vessel: NDArray[np.float64]  # (8, 6): ends of vessels within femur and tibia, in a box from −1 to 1
    phase: NDArray[np.float64]  # (3,): course of the vessels around the bones


def draw_tissue(rng: np.random.Generator, anatomy: Anatomy) -> Tissue:
    """Random tissues of one subject; the cartilages fill the joint."""
    return Tissue(
        cortex=draw_waves(rng, 12, 50, 6),
        cartilage=draw_waves(rng, 15, 40, 5),
        lost=draw_waves(rng, 14, 45, 6),
        shift=draw_waves(rng, 16, 50, 6),
        oedema=draw_waves(rng, 20, 60, 6),
        marrow=draw_waves(rng, 1.2, 6, 36),
        soft=draw_waves(rng, 2.5, 14, 12, along_z=0.3),
        bias=draw_waves(rng, 130, 300, 4),
        cartilage_mm=float(anatomy.joint_mm / 2 * rng.uniform(0.9, 1.1)),
        effusion_mm=float(rng.gamma(2.0, 0.6)),
        gain=float(GAIN * rng.uniform(0.85, 1.15)),
        vessel=rng.uniform(-1, 1, (8, 6)),
        phase=rng.uniform(0, 2 * np.pi, 3),
    )


def coverage(distance: Array, width: Array | float) -> Array:
    """Share of a voxel on the inner side of a boundary.

    Args:
        distance: signed distance of the voxel's centre in mm, negative inside.
        width: the voxel's width along the gradient in mm.
    """
    return np.clip(0.5 - distance / np.maximum(width, 1e-3), 0, 1)


@plain_dataclass(frozen=True)
class _Canvas:
    """An image on a slab of voxels, and the ways to lay a tissue over it."""

    image: Array
    voxel_mm: float

    def paint(self, field: Array, value: Array | float, thickness_mm: float = np.inf) -> None:
        """Lay a tissue over the image where its field is negative.

        The field need not be a distance: its differences between neighbouring voxels are its gradient times the voxel's
        width. What is thinner than a voxel leaves a share of what lies below.
        """
        if field.min() > 4.5 * self.voxel_mm:  # no voxel of the slab is touched
            return
        share = coverage(field, sum(np.abs(g) for g in np.gradient(field)))
        self.image[...] += share * min(1.0, thickness_mm / self.voxel_mm) * (value - self.image)

    def tube(
        self, p: Coordinates, points: Sequence[ArrayLike], radius: float, value: float, squeeze: float = 1.0
    ) -> None:
        """Lay a tube through some points over the image."""
        field = np.minimum.reduce([capsule(p, a, b, radius, radius, squeeze) for a, b in pairwise(points)])
        self.paint(field, value, 1.6 * radius)


def _soft_tissue(
    p: Coordinates, d: Sequence[Array], anatomy: Anatomy, tissue: Tissue, options: PhantomOptions
) -> Array:
    """Everything but the bones and their cartilage; d holds the signed distances to the bones in mm."""
    f, t = to_bone(p, anatomy.femur), to_bone(p, anatomy.tibia)
    canvas = _Canvas(np.zeros_like(p[0]), float(np.mean(options.spacing)))
    x, y, z = f
    # The limb's outline in each axial plane: its front follows patella, patellar tendon and tibia.
    front = 42 + 24 * smooth_step((z + 12) / 22)
    back = -69 - 5 * np.tanh((np.abs(z - 10) - 35) / 25)
    limb = ellipse(x, y - (front + back) / 2, 60.0, (front - back) / 2, 2.2)
    limb = np.minimum(limb, np.minimum.reduce(d) - 5)
    canvas.paint(limb, SKIN)
    grain = options.texture * tissue.soft(p, options.spacing)
    canvas.paint(limb + 1.8, FAT + 0.4 * grain)
    wobble = 1.3 * tissue.lost(f)  # no belly is a plain capsule
    for start, end, radius_a, radius_b, squeeze, signal in _MUSCLES:
        belly = smooth_max(capsule(f, start, end, radius_a, radius_b, squeeze) + wobble, limb + 6, 5)
        canvas.paint(belly - 1.2, FAT)
        canvas.paint(belly, MUSCLE * signal + grain)
    # The fibula, which is no label: a small bone that touches the tibia.
    fibula = smooth_min(
        capsule(t, (37, -15, -19), (36, -16, -30), 8, 6), capsule(t, (36, -16, -30), (34, -18, -90), 6, 6), 5
    )
    canvas.paint(fibula, CORTEX)
    canvas.paint(fibula + 0.8, MARROW + grain)
    # The joint's fluid lies between the cartilages and in the pouch above the patella.
    reach = 1.3 * tissue.cartilage_mm + 0.7 * tissue.effusion_mm
    canvas.paint(np.maximum(d[0], np.minimum(d[1], d[2])) - reach, FLUID)
    canvas.paint(capsule(f, (0, 33, 50), (0, 27, 78), 0.4 + tissue.effusion_mm, 0.3, 7), FLUID, 1 + tissue.effusion_mm)
    for sign in (-1, 1):  # menisci: rings between the condyles and the rims of the plateaus
        ring = np.abs(np.hypot((t[0] - sign * 20) / 16, (t[1] + 5) / 20) - 1) * 17 - 6
        canvas.paint(np.maximum(ring, np.maximum(d[0] - 7, d[1] - 6)), MENISCUS)
    _ligaments(canvas, p, f, t, anatomy)
    if options.vessels > 0:
        _vessels(canvas, f, t, d, tissue, np.sqrt(options.vessels))
    return canvas.image


def _ligaments(canvas: _Canvas, p: Coordinates, f: Coordinates, t: Coordinates, anatomy: Anatomy) -> None:
    """Cruciate and collateral ligaments, patellar and quadriceps tendon: dark, from bone to bone."""
    femur, tibia, patella = anatomy.bones
    size = anatomy.scale
    for points, radius, squeeze in (
        ((to_world((-1, 9, -5), tibia), to_world((11, -13, 21), femur)), 3.6, 1.0),
        ((to_world((0, -30, -12), tibia), to_world((-1, -22, 4), tibia), to_world((-9, 5, 13), femur)), 4.0, 1.0),
        ((to_world((0, 0, -20), patella), to_world((2, 22, -40), tibia)), 2.6, 4.5),
        ((to_world((0, 3, 19), patella), to_world((0, 38, 85), femur), to_world((0, 38, 120), femur)), 3.2, 4.5),
        ((to_world((-42, 0, 30), femur), to_world((-41, -4, -2), femur), to_world((-31, 0, -30), tibia)), 2.6, 0.5),
        ((to_world((42, -2, 30), femur), to_world((38, -14, -20), tibia)), 2.2, 0.8),
    ):
        canvas.tube(p, points, radius * size, TENDON, squeeze)


def _vessels(canvas: _Canvas, f: Coordinates, t: Coordinates, d: Sequence[Array], tissue: Tissue, width: float) -> None:
    """Popliteal artery and vein, and geniculate vessels that run along femur and tibia, close to their edges."""
    a, b = 4 * np.sin(tissue.phase[:2])
    for dx, dy, radius in ((4, 0, 2.6), (-1, -5, 3.6)):
        course = [
            (a + dx, -34 + dy, 115),
            (dx, -40 + dy, 60),
            (b + dx, -40 + dy, 25),
            (dx, -36 + dy, -5),
            (2, -44 + dy, -80),
        ]
        canvas.tube(f, course, radius * width, VESSEL)
    for (x, _, z), k, height, phase in ((f, 0, 49, 0), (f, 0, 70, 1), (t, 1, -15, 2)):
        swing = x / 11 + tissue.phase[phase]
        along = z - height - 6 * np.sin(swing)
        off = d[k] - 1.8 - np.sin(1.4 * swing)
        canvas.paint(np.hypot(off, along) - 1.2 * width, VESSEL, 2 * width)


def _cartilage_mm(q: Coordinates, bone: Bone, tissue: Tissue) -> Array:
    """Thickness of the cartilage in mm at points of the bone's frame near its surface; zero outside the joint."""
    x, y, z = q
    if isinstance(bone.shape, Femur):  # condyles and trochlea, not the walls of the notch, nor the sides
        notch = np.maximum(np.abs(x) - bone.shape.notch_halfwidth - 1.5, 0.8 * (y - 5))
        top = 37 + 9 * np.tanh(y / 8) - z
        sides = 33 - 6 * smooth_step((z - 24) / 5) * smooth_step(y / 5) - np.abs(x)
        edge, share = np.minimum(np.minimum(notch, top), sides), 1.0
    elif isinstance(bone.shape, Tibia):  # the plateaus, not the eminence
        edge = np.minimum((1 - np.hypot((np.abs(x) - 20) / 16, (y + 5) / 22)) * 16, z + 12)
        share = 1.05
    else:  # the facets
        edge, share = np.minimum(np.minimum(-1 - y, z + 14), 20 - np.abs(x)), 1.4
    local = np.clip(1 + 0.22 * tissue.cartilage(q), 0.3, 1.6)
    return share * tissue.cartilage_mm * local * np.clip(edge / 5, 0, 1) ** 0.7


def _marrow(p: Coordinates, q: Coordinates, bone: int, tissue: Tissue, options: PhantomOptions) -> Array:
    """Signal of the marrow at world points p, q in the bone's frame: texture, oedema, growth plate's scar, vessels."""
    signal = MARROW + options.texture * tissue.marrow(p, options.spacing)
    signal += 0.35 * np.clip(tissue.oedema(p) - 1.6, 0, 1)
    if bone == 2:
        return signal
    voxel = float(np.mean(options.spacing))
    plate = (
        np.abs(q[2] - (38, -17)[bone] - 2 * np.sin(q[0] / 9 + q[1] / 7) - 2 * np.sin(q[1] / 13) - 0.004 * q[0] ** 2)
        - 0.5
    )
    signal += coverage(plate, voxel) * min(1.0, 1.5 / voxel) * (SCAR - signal)
    half, centre = np.array([[30, 20, 22], [28, 18, 16]])[bone], np.array([[0, 2, 32], [0, -4, -22]])[bone]
    for ends in tissue.vessel[4 * bone : 4 * bone + round(min(2 * options.vessels, 4))]:
        tube = capsule(q, ends[:3] * half + centre, ends[3:] * half + centre, 0.9, 0.6)
        signal += coverage(tube, voxel) * (0.7 - signal)
    return signal


def render(
    p: Coordinates, bones: Sequence[tuple[Array, Array]], anatomy: Anatomy, tissue: Tissue, options: PhantomOptions
) -> Array:
    """Noise-free signal on a grid, cartilage = 1.

    Args:
        p: x, y and z of the voxels' centres in world mm, (X, Y, Z) each.
        bones: for each bone the signed distance (X, Y, Z) in mm and its unit gradient (3, X, Y, Z).
        anatomy: the subject's bones.
        tissue: the subject's other tissues.
        options: grid and contrast.

    Returns:
        (X, Y, Z).
    """
    image = _soft_tissue(p, [distance for distance, _ in bones], anatomy, tissue, options)
    spacing = np.asarray(options.spacing)
    for k, (bone, (distance, normal)) in enumerate(zip(anatomy.bones, bones, strict=True)):
        near = distance < 6
        dist, width = distance[near], np.abs(normal[:, near]).T @ spacing
        at = select(p, near)
        q = to_bone(at, bone)
        cortex = options.cortex_mm * np.clip(1 + 0.6 * tissue.cortex(q), 0.2, 2)
        # Nested layers: each boundary's coverage; the differences are the layers' shares of the voxel.
        outer, edge = coverage(dist - _cartilage_mm(q, bone, tissue), width), coverage(dist, width)
        inner = coverage(dist + cortex, width)
        value = image[near] * (1 - outer) + CARTILAGE * (outer - edge) + CORTEX * (edge - inner)
        value += inner * _marrow(at, q, k, tissue, options)
        # An edge fades into the marrow's grey in a band that does not quite follow it, or the band would give it away.
        fade = (1 - options.edge_contrast) * np.clip(0.7 + 0.5 * tissue.lost(q), 0, 1)
        band = np.exp(-(((dist - 1.5 * tissue.shift(q)) / 3) ** 2))
        image[near] = value + fade * band * (MARROW - value)
    return image


def acquire(signal: Array, tissue: Tissue, options: PhantomOptions, rng: np.random.Generator) -> NDArray[np.float32]:
    """Point spread, bias field, Rician noise and gain: signal (X, Y, Z) → whole grey values (X, Y, Z) float32.

    A scanner stores whole numbers; here they also make the image the same on every processor, as the last bits of sines
    and exponentials are not.
    """
    if options.blur_mm > 0:
        sigma = options.blur_mm / (2 * np.sqrt(2 * np.log(2))) / np.asarray(options.spacing)
        signal = ndimage.gaussian_filter(signal, sigma)
    image = np.empty(options.shape, np.float32)
    x, y, z = (
        (o + s * np.arange(n)) for o, s, n in zip(options.affine[:3, 3], options.spacing, options.shape, strict=True)
    )
    for i in range(options.shape[0]):
        bias = np.exp(options.bias / np.sqrt(2) * tissue.bias((x[i : i + 1, None], y[:, None], z[None, :])))
        noise = options.noise * rng.standard_normal((2, *options.shape[1:]))
        image[i] = np.rint(tissue.gain * np.hypot(signal[i] * bias + noise[0], noise[1]))
    return image
