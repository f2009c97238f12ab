"""Small files in the documented layouts of GNM Head v3, 3DDFA_V2 and Deep3DFaceRecon; no real file was at hand."""

import pickle

import numpy as np
import scipy.io

from tests.model.importers.writers_linear import SIDE, flat

N_OTHERS = 3
IDENTITY_NAMES = ["head_000", "head_001", "head_002", "eyes_000", "teeth_000"]
EXPRESSION_NAMES = ["left_eye_region_000", "lower_face_region_000", "tongue_mean", "pupils_000"]
OLD_NAMES = {
    "identity_names": ["head_000", "head_001", "head_002", "eyeballs_000", "teeth_000"],
    "expression_names": ["left_eye_000", "mouth_000", "tongue_000", "eyeballs_000"],
}


def gnm_arrays(face, *, unit_mm=1000.0):
    """All documented arrays: the face is the skin, N_OTHERS vertices behind it are a tooth; left half and right half
    have texture coordinates of their own."""
    draw = np.random.default_rng(5)
    n = len(face.mean)
    tooth = face.mean[:N_OTHERS] - [0.0, 0.0, 20.0]
    template = np.concatenate([face.mean, tooth]) / unit_mm
    identity = np.moveaxis(face.identity * face.identity_sd, -1, 0)
    expression = np.moveaxis(face.expression * face.expression_sd, -1, 0)
    triangles = np.concatenate([face.triangles, [[n, n + 1, n + 2]]])
    uv = np.concatenate([template[:, :2] / 0.4 + 0.5])
    corner_uv = uv[triangles]
    corner_uv[(triangles % SIDE).max(axis=1) >= SIDE // 2 + 1] += [0.25, 0.0]
    groups = np.zeros((3, n + N_OTHERS))
    groups[0, :n], groups[1, n:], groups[2, : n - 1] = 1.0, 1.0, 0.7
    return {
        "version": np.array("3.0"),
        "variant": np.array("head"),
        "template_vertex_positions": template.astype(np.float32),
        "template_joint_positions": np.zeros((4, 3), np.float32),
        "vertex_identity_basis": _padded(identity, len(IDENTITY_NAMES), N_OTHERS, unit_mm, draw),
        "joint_identity_basis": np.zeros((len(IDENTITY_NAMES), 4, 3), np.float32),
        "expression_basis": _padded(expression, len(EXPRESSION_NAMES), N_OTHERS, unit_mm, draw),
        "identity_names": np.array(IDENTITY_NAMES),
        "expression_names": np.array(EXPRESSION_NAMES),
        "joint_names": np.array(["neck", "head", "left_eye", "right_eye"]),
        "joint_parent_indices": np.array([-1, 0, 1, 1]),
        "skinning_weights": np.ones((4, n + N_OTHERS), np.float32),
        "quads": triangles[:, [0, 1, 2, 2]],
        "triangles": triangles.astype(np.int32),
        "quad_uvs": corner_uv[:, [0, 1, 2, 2]].astype(np.float32),
        "triangle_uvs": corner_uv.astype(np.float32),
        "mesh_component_names": np.array(["skin", "teeth"]),
        "mirror_indices": np.arange(n + N_OTHERS),
        "joint_regressor": np.zeros((4, n + N_OTHERS), np.float32),
        "pose_correctives_regressor": np.zeros((36, 3 * (n + N_OTHERS)), np.float32),
        "bone_aligned_template_joint_orientations": np.broadcast_to(np.eye(3), (4, 3, 3)),
        "vertex_groups": groups.astype(np.float32),
        "vertex_group_names": np.array(["skin", "teeth", "skin_exterior"]),
    }


def _padded(modes, count, n_others, unit_mm, draw):
    """The modes and further random ones, with zeros at the other vertices."""
    further = draw.normal(size=(count - len(modes), *modes.shape[1:]))
    both = np.concatenate([modes, further])
    return np.concatenate([both, np.zeros((count, n_others, 3))], axis=1).astype(np.float32) / np.float32(unit_mm)


def write_gnm(file, face, **changes):
    """The file; `changes` replace arrays, or leave them out where None."""
    arrays = {name: array for name, array in {**gnm_arrays(face), **changes}.items() if array is not None}
    np.savez_compressed(file, **arrays)
    return file


def write_deep3d(file, face):
    """Decimetres, clockwise triangles from 1, bases in standard deviations, colours 0..255."""
    draw = np.random.default_rng(3)
    n = 3 * len(face.mean)
    arrays = {
        "meanshape": flat(face.mean).T / 100,
        "idBase": flat(face.identity * face.identity_sd) / 100,
        "exBase": flat(face.expression * face.expression_sd) / 100,
        "meantex": draw.uniform(60, 200, (1, n)),
        "texBase": draw.normal(size=(n, 2)),
        "tri": (face.triangles[:, [0, 2, 1]] + 1).astype(np.float64),
        "keypoints": np.arange(1.0, 69.0)[None],
    }
    scipy.io.savemat(file, arrays)
    return arrays


def write_noneck(folder, face, *, protocol=2, triangles_beside=False):
    """bfm_noneck_v3.pkl in micrometres, and the spread of its weights; triangles [3, T] from 0."""
    model = {
        "u": (1e3 * flat(face.mean)).astype(np.float32),
        "w_shp": flat(face.identity).astype(np.float32),
        "w_exp": flat(face.expression).astype(np.float32),
        "tri": face.triangles.T.astype(np.int64),
        "keypoints": np.arange(204),
    }
    if triangles_beside:
        model["tri"] = np.zeros((3, 2), dtype=np.int64)
        (folder / "tri.pkl").write_bytes(pickle.dumps(face.triangles.T.astype(np.int32), protocol=protocol))
    spread = {
        "mean": np.concatenate([np.zeros(12), 1e3 * face.identity_sd * 0.6, 1e3 * face.expression_sd * 0.6]),
        "std": np.concatenate([np.ones(12), 1e3 * face.identity_sd * 0.8, 1e3 * face.expression_sd * 0.8]),
    }
    (folder / "bfm_noneck_v3.pkl").write_bytes(pickle.dumps(model, protocol=protocol))
    (folder / "param_mean_std_62d_120x120.pkl").write_bytes(pickle.dumps(spread, protocol=protocol))
    return folder / "bfm_noneck_v3.pkl"
