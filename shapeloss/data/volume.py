"""One volume on disk, in any of the field's formats → an array with its affine. Each fault of a file is one line.

NIfTI goes through nibabel, NRRD and MetaImage through SimpleITK. Arrays are (X, Y, Z) as they lie in the file; the
affine takes voxel indices to world mm in RAS, whatever the format's own convention is.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from shapeloss._files import atomic, os_error_message
from shapeloss.data.contents import foreign_content, foreign_start
from shapeloss.data.headers import VolumeError, check_data, check_expanded, check_length, itk_format, read_header
from shapeloss.data.names import FORMATS, volume_ending


def write_nifti(path: str | Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a gzipped NIfTI atomically; equal arrays give equal bytes (no time stamp)."""
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


GRID_TOLERANCE = 0.02
"""How far two grids may lie apart at their corners and still count as one, as a share of the shortest voxel side."""
QUATERNION_ROUNDING = 5e-7
"""Error of the squared real part of an orientation that is a NIfTI quaternion in float32: near 180°, where that part
is small, it turns a grid by up to 0.07°, which is most of a voxel at the far corner of a knee."""
SIZE_TOLERANCE = 0.01
"""How far the voxel sizes of one NIfTI header may differ from each other, as a share."""
LABEL_ROUNDING = 1e-3
"""How far a label may lie from a whole number: stored as an integer of 16 bits with a scale factor in float32, labels
of up to 65 are that exact."""
ANGLE_TOLERANCE = 1e-3
"""How large the cosine between two axes may be that count as at right angles: float32 headers have 1e-7."""
MAX_VOXELS = 2**31
"""A header that declares more is taken for a broken one: a DESS knee has 2.4e7."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """Values on a grid."""

    array: np.ndarray
    """(X, Y, Z)."""
    affine: np.ndarray
    """(4, 4) voxel → world mm, RAS."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along X, Y, Z."""
        return affine_spacing(self.affine)

    def oriented(self, axcodes: str = "RAS") -> Volume:
        """The same values with their axes flipped and swapped to lie nearest to some directions; never resampled.

        X runs fastest in memory, however the file was stored, so that sums over voxels round alike.
        """
        turn = ornt_transform(io_orientation(self.affine), axcodes2ornt(axcodes))
        affine = self.affine @ inv_ornt_aff(turn, self.array.shape)
        return Volume(np.asfortranarray(apply_orientation(self.array, turn)), affine)

    def oriented_as(self, affine: np.ndarray) -> Volume:
        """The inverse of :meth:`oriented`: axes lie as those of another grid."""
        return self.oriented("".join(nibabel.aff2axcodes(affine)))


def affine_spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size in mm along X, Y, Z of an affine (4, 4)."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).round(6)
    return float(x), float(y), float(z)


def image_fault(image: np.ndarray) -> str:
    """What is wrong with the values of an image, beyond what :func:`read_volume` finds; empty if nothing is."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return f"every voxel of the image has the value {low:g}; is it the right file?"
    if max(-low, high) > float(np.finfo(np.float32).max):
        return f"its image has values up to {max(-low, high):g}, beyond float32; rescale it"
    return ""


def read_volume(path: str | Path) -> Volume:
    """Read a volume: finite numbers on a grid of three axes.

    Raises:
        VolumeError: whatever is wrong with the file, in one line.
    """
    path = Path(path)
    ending = volume_ending(path)
    try:
        if not path.is_file():
            raise VolumeError(f"{path}: there is no such file; check the name")
        if not ending:
            raise VolumeError(f"{path}: is in no format that can be read; convert it to one of {', '.join(FORMATS)}")
        if path.stat().st_size == 0:
            raise VolumeError(f"{path}: is empty (0 bytes); copy or download it again")
        if fault := foreign_content(path):
            raise VolumeError(f"{path}: {fault}")
        volume = _read_nifti(path) if ending.startswith(".nii") else _read_itk(path)
    except PermissionError as error:
        raise VolumeError(f"{path}: cannot be read: permission denied; change its permissions") from error
    except OSError as error:
        raise VolumeError(os_error_message(error, path)) from error
    except MemoryError as error:
        raise VolumeError(f"{path}: there is not enough memory to read it; close other programs") from error
    array, affine = volume.array, volume.affine
    if array.ndim > 3 and set(array.shape[3:]) == {1}:
        array = array.reshape(array.shape[:3])
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "iufb":
        several = array.dtype.kind not in "iufb"  # colours, complex numbers
        shape = "several values per voxel" if several else f"shape {' × '.join(map(str, array.shape))}"
        raise VolumeError(f"{path}: has {shape}; one volume (X, Y, Z) was expected, so split or convert it")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        shown = " × ".join(f"{value:g}" for value in spacing)
        raise VolumeError(f"{path}: voxel size {shown} mm or directions make no grid; correct the header")
    products = (affine[:3, :3] / spacing).T @ (affine[:3, :3] / spacing)
    if np.abs(products - np.eye(3)).max() > ANGLE_TOLERANCE:
        raise VolumeError(f"{path}: has axes that are not at right angles (sheared); resample it onto a straight grid")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise VolumeError(f"{path}: {bad} of {array.size} voxels are NaN or infinite; replace them, or the file")
    return Volume(array, affine)


def read_labels(path: str | Path, remap: Mapping[int, int] | None = None) -> Volume:
    """Read a label map as whole numbers of 0 and above.

    Args:
        path: the file.
        remap: old label → new label; labels that are not named become 0. None leaves all as they are.

    Returns:
        A volume of uint8, or of int32 where a label is above 255.

    Raises:
        VolumeError: as :func:`read_volume`; fractional or negative values.
    """
    volume = read_volume(path)
    array = volume.array
    values = np.unique(array)
    if values.dtype.kind not in "iub":
        fractional = np.abs(values - np.round(values)) > np.maximum(LABEL_ROUNDING, 1e-7 * np.abs(values))
        if not fractional.any():
            array = np.round(array)
            values = np.unique(array)
    if values.dtype.kind not in "iub" and (values != np.round(values)).any():
        example = values[fractional][0]
        remedy = "resample label maps with nearest neighbour, or threshold probabilities"
        raise VolumeError(f"{path}: has fractional label {example:g}; labels are whole numbers: {remedy}")
    if values[0] < 0 or values[-1] > np.iinfo(np.int32).max:
        unknown = values[0] if values[0] < 0 else values[-1]
        raise VolumeError(f"{path}: has label {unknown:g}; labels are 0 (background) and above: is it an image?")
    labels = array
    if remap is not None:
        new = [remap.get(int(value), 0) for value in values]
        labels = np.asarray(new, dtype=np.int32)[np.searchsorted(values, labels)]
        values = np.asarray(new)
    return Volume(labels.astype(np.uint8 if values.max() < 256 else np.int32), volume.affine)


def grid_difference(volume: Volume, other: Volume) -> str:
    """How the grid of `volume` differs from that of `other`: one line, empty if they are the same grid.

    They are where no corner lies further apart than :data:`GRID_TOLERANCE`, and what a NIfTI quaternion may turn.
    """
    if volume.array.shape != other.array.shape:
        shapes = [" × ".join(map(str, v.array.shape)) for v in (volume, other)]
        return f"{shapes[0]} voxels, not {shapes[1]}"
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in volume.array.shape], [1], indexing="ij"), -1).reshape(-1, 4)
    gaps = np.linalg.norm((corners @ (volume.affine - other.affine).T)[:, :3], axis=1)
    gap = gaps.max()
    lengths = np.linalg.norm((corners[:, :3] * other.spacing), axis=1)  # from the first voxel, which a turn leaves
    allowed = GRID_TOLERANCE * min(volume.spacing + other.spacing) + _quaternion_turn(other.affine) * lengths
    if (gaps <= allowed).all():
        return ""
    if not np.allclose(volume.spacing, other.spacing, atol=1e-4):
        sizes = [" × ".join(f"{x:g}" for x in v.spacing) for v in (volume, other)]
        return f"voxels of {sizes[0]} mm, not {sizes[1]} mm"
    directions = [v.affine[:3, :3] / np.linalg.norm(v.affine[:3, :3], axis=0) for v in (volume, other)]
    if not np.allclose(directions[0], directions[1], atol=1e-4):
        codes = ["".join(nibabel.aff2axcodes(v.affine)) for v in (volume, other)]
        if codes[0] != codes[1]:
            return f"axes {codes[0]}, not {codes[1]}"
        angle = np.degrees(np.arccos(np.clip((directions[0] * directions[1]).sum(0), -1, 1))).max()
        return f"axes turned by {angle:.3g}°"
    return f"shifted by {gap:.3g} mm"


def _quaternion_turn(affine: np.ndarray) -> float:
    """By how much (rad) the rounding of a NIfTI quaternion may turn a grid: 1e-7, but for turns near 180°."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(directions) < 0:
        directions[:, 2] *= -1  # as NIfTI stores it, with qfac −1
    real = max(1 + np.trace(directions), 0) / 4  # squared
    reals = real + QUATERNION_ROUNDING, max(real - QUATERNION_ROUNDING, 0)
    return 2 * max(abs(math.sqrt(r) - math.sqrt(real)) for r in reals)


def _read_nifti(path: Path) -> Volume:
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else open(path, "rb") as stream:  # nibabel hides why it cannot be expanded
            start = stream.read(1024)
            if not start:
                raise VolumeError(f"{path}: expands to 0 bytes; copy or download it again")
            if fault := foreign_start(start, path.name.lower()):
                raise VolumeError(f"{path}: {fault}")
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise VolumeError(f"{path}: is {type(image).__name__}, not NIfTI; convert it")
        _check_size(path, image.shape)
        unit = image.header.get_xyzt_units()[0]
        if unit in ("meter", "micron"):
            raise VolumeError(f"{path}: gives voxel sizes in {unit}; write them in mm")
        _check_voxel_size(path, type(image.header), start, len(image.shape))
        stored: Any = image.dataobj
        declared = stored.offset + stored.dtype.itemsize * math.prod(image.shape)
        if packed:
            with gzip.open(path) as stream:
                check_expanded(path, stream, declared)
        else:
            check_length(path, path.stat().st_size, declared)
        return Volume(np.asanyarray(stored), image.affine.astype(float))
    except VolumeError:
        raise
    except ImageFileError as error:
        raise VolumeError(f"{path}: does not start as NIfTI does; check how it was made") from error
    except MemoryError:
        raise
    except (EOFError, zlib.error, OSError) as error:
        if _of_the_system(error):
            raise
        cut = "Not a gzipped file" not in str(error)  # else nothing says that another copy would be better
        remedy = "copy or download it again" if cut else "check how it was made"
        raise VolumeError(f"{path}: is not a valid NIfTI file ({_reason(error)}); {remedy}") from error
    except Exception as error:  # nibabel's header checks raise classes of their own
        raise VolumeError(f"{path}: has a broken NIfTI header ({_reason(error)}); check how it was made") from error


def _read_itk(path: Path) -> Volume:
    kind = itk_format(path)
    header = read_header(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if kind == "NRRD" else "MetaImageIO")
    try:
        reader.ReadImageInformation()
        _check_size(path, reader.GetSize())
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
            components = f", {reader.GetNumberOfComponents()} values per voxel"
            shape = " × ".join(map(str, reader.GetSize())) + components * (reader.GetNumberOfComponents() > 1)
            raise VolumeError(f"{path}: has shape {shape}; one volume (X, Y, Z) was expected, so split or convert it")
        check_data(path, header, math.prod(reader.GetSize()) * _item_bytes(reader.GetPixelID()))
        image = reader.Execute()
    except VolumeError:
        raise
    except (RuntimeError, OSError, ValueError, EOFError, zlib.error) as error:
        if _of_the_system(error):
            raise
        if re.search("bad_alloc|allocate memory", str(error)):  # ITK's own lack of memory
            raise MemoryError from error
        raise VolumeError(f"{path}: is not a valid {kind} file ({_reason(error)}); check how it was made") from error
    return Volume(SimpleITK.GetArrayFromImage(image).transpose(), itk_affine(image))


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    """The affine (4, 4) voxel → RAS mm of a SimpleITK image, whose own world is LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return _LPS_TO_RAS @ affine


def _item_bytes(pixel_id: int) -> int:
    return SimpleITK.GetArrayViewFromImage(SimpleITK.Image([1, 1, 1], pixel_id)).itemsize


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    voxels = int(np.prod([max(int(n), 0) for n in shape], dtype=object)) if len(shape) else 0
    if voxels > MAX_VOXELS:
        shown = " × ".join(map(str, shape))
        raise VolumeError(f"{path}: declares {shown} voxels, which is not a plausible scan; the header is broken")


def _check_voxel_size(path: Path, header_class: Any, start: bytes, axes: int) -> None:
    """Voxel sizes as they lie in a NIfTI header: nibabel takes 1 mm for 0, and the absolute value of what is negative.

    Where there is an sform, sizes come from it.
    """
    header = header_class(start[: header_class.sizeof_hdr], check=False)
    sizes = header["pixdim"][1 : 1 + min(axes, 3)].astype(float)
    if int(header["sform_code"]) == 0 and not (np.isfinite(sizes) & (sizes > 0)).all():
        shown = " × ".join(f"{value:g}" for value in sizes)
        raise VolumeError(f"{path}: voxel size {shown} mm or directions make no grid; correct the header")
    sizes = np.abs(sizes)
    if int(header["sform_code"]) > 0 and len(sizes) == 3 and (np.isfinite(sizes) & (sizes > 0)).all():
        sform = np.linalg.norm(np.stack([header[f"srow_{row}"][:3] for row in "xyz"]).astype(float), axis=0)
        if (np.isfinite(sform) & (sform > 0)).all() and (np.abs(sform - sizes) > SIZE_TOLERANCE * sizes).any():
            said = [" × ".join(f"{value:.4g}" for value in each) for each in (sform, sizes)]
            raise VolumeError(
                f"{path}: has voxels of {said[0]} mm by its sform, but {said[1]} mm by its pixdim, so lengths in mm "
                "are not known; find out which is right and correct the other (nibabel: image.set_qform(image.affine) "
                "keeps the sform, image.set_sform(image.get_qform()) the pixdim)"
            )


def _of_the_system(error: BaseException) -> bool:
    """Is it the system that could not read? What the readers find wrong with a file has no error number."""
    return isinstance(error, OSError) and error.errno is not None


def _reason(error: BaseException) -> str:
    """The last line of a library's message, without its C++ source lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    text = re.sub(r"^.*?(ITK ERROR|Exception thrown in [^:]*):\s*(\w+\([0-9a-fx]+\):)?\s*", "", last)
    return (text or type(error).__name__).rstrip(".")[:160]
