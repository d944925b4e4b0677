"""Files that hold the same images with their axes in another order."""

import shutil

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff


def stored_in_order(folder, order, to):
    """Store the images of a folder with their axes in another order, and the affine for it."""
    to.mkdir(parents=True)
    for path in folder.iterdir():
        if not path.name.endswith(".nii.gz"):
            shutil.copy(path, to)
            continue
        image = nib.load(path)
        data = apply_orientation(np.asarray(image.dataobj), order)
        affine = image.affine @ inv_ornt_aff(order, image.shape[:3])
        other = nib.Nifti1Image(data, affine, dtype=image.get_data_dtype())
        other.header["xyzt_units"] = image.header["xyzt_units"]
        other.header["pixdim"][4] = image.header["pixdim"][4]
        nib.save(other, to / path.name)
    return to
