"""Writes the .mat files of 300W-LP and AFLW2000-3D, with every variable that the real ones have."""

import numpy as np
import scipy.io


def fitted_arrays(data_set, photo):
    """The variables of the file for a FittedPhoto, as MATLAB stores them."""
    points = photo.points.numpy().T + 1
    arrays = {
        "roi": np.array([[11, 21, 461, 471]], np.int16),
        "Illum_Para": np.zeros((1, 10), np.float32),
        "Color_Para": np.ones((1, 7), np.float32),
        "Tex_Para": np.zeros((199, 1)),
        "Shape_Para": photo.shape.numpy()[:, None],
        "Exp_Para": photo.expression.numpy()[:, None],
        "Pose_Para": photo.pose.numpy()[None].astype(np.float32),
    }
    if data_set == "w300lp":
        return {"pt2d": points, **arrays}
    depth = np.zeros((1, 68))
    return {"pt2d": -np.ones((2, 21)), **arrays, "pt3d_68": np.concatenate([points, depth]).astype(np.float32)}


def write_fitted_mat(path, data_set, photo, *, compressed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, fitted_arrays(data_set, photo), do_compression=compressed)
    return path
