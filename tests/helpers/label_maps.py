"""Label maps on disk."""

import nibabel
import numpy as np
import SimpleITK
from scipy.spatial.transform import Rotation

SPACING = (4.0, 0.5, 0.8)


def affine(oblique=False):
    matrix = np.diag([*SPACING, 1.0])
    matrix[:3, 3] = (-30, 12, 5)
    if oblique:
        matrix[:3, :3] = Rotation.from_euler("xyz", [12, -8, 5], degrees=True).as_matrix() @ matrix[:3, :3]
    return matrix


def write(path, array, matrix=None):
    matrix = affine() if matrix is None else matrix
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(array, matrix), path)
        return
    lps = np.diag([-1, -1, 1, 1]) @ matrix
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array.transpose())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
