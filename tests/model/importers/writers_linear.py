"""Small files in the layouts of published linear models, and the arrays that are in them."""

import pickle
import struct
import sys
import types
from dataclasses import dataclass

import numpy as np
import scipy.io
import scipy.sparse

SIDE = 4
TRIANGLES = np.array(
    [
        corners
        for row in range(SIDE - 1)
        for column in range(SIDE - 1)
        for first in [row * SIDE + column]
        for corners in ((first, first + SIDE + 1, first + 1), (first, first + SIDE, first + SIDE + 1))
    ]
)


@dataclass
class Face:
    """A bulging grid of 160 x 200 mm, rows from the top, triangles counter-clockwise seen from +z."""

    mean: np.ndarray  # [V, 3] mm
    identity: np.ndarray  # [V, 3, 3]: mm per standard deviation, made of unit columns
    identity_sd: np.ndarray  # [3]
    expression: np.ndarray  # [V, 3, 2]
    expression_sd: np.ndarray  # [2]
    triangles: np.ndarray

    def shape(self, alpha, beta):
        """Vertices in mm for standard deviations of both."""
        return self.mean + (self.identity * self.identity_sd) @ alpha + (self.expression * self.expression_sd) @ beta


def small_face(seed=0):
    draw = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
    x, y = column / (SIDE - 1) - 0.5, 0.5 - row / (SIDE - 1)
    mean = np.stack([160 * x + 7, 200 * y - 3, 60 * np.cos(3 * x) * np.cos(3 * y) + 11], axis=1)
    bases = [np.linalg.qr(draw.normal(size=(3 * len(mean), n)))[0].reshape(-1, 3, n) for n in (3, 2)]
    return Face(
        mean=mean,
        identity=bases[0],
        identity_sd=np.array([40.0, 20.0, 5.0]),
        expression=bases[1],
        expression_sd=np.array([30.0, 10.0]),
        triangles=TRIANGLES.copy(),
    )


def flat(array):
    """[V, 3] -> [3 V, 1], [V, 3, n] -> [3 V, n]."""
    return array.reshape(array.shape[0] * 3, -1)


def write_bfm2009(file, face, *, name="tl"):
    """Micrometres, clockwise triangles from 1, standard deviations."""
    draw = np.random.default_rng(3)
    n = 3 * len(face.mean)
    arrays = {
        "shapeMU": (1e3 * flat(face.mean)).astype(np.float32),
        "shapePC": flat(face.identity).astype(np.float32),
        "shapeEV": (1e3 * face.identity_sd)[:, None].astype(np.float32),
        "texMU": draw.uniform(60, 200, (n, 1)).astype(np.float32),
        "texPC": draw.normal(size=(n, 2)).astype(np.float32),
        "texEV": np.array([[20.0], [10.0]], dtype=np.float32),
        name: (face.triangles[:, [0, 2, 1]] + 1).astype(np.float64),
    }
    scipy.io.savemat(file, arrays)
    return arrays


def write_face3d(file, face, offset):
    """One struct `model` with the expressions in it; `offset` [V, 3] mm is their mean."""
    arrays = write_bfm2009(file, face)
    model = {name: arrays[name] for name in ("shapeMU", "shapePC", "shapeEV")}
    model |= {
        "expMU": 1e3 * flat(offset),
        "expPC": 1e3 * flat(face.expression),
        "expEV": face.expression_sd[:, None],
        "tri": (face.triangles[:, [0, 2, 1]] + 1).T.astype(np.int32),
        "kpt_ind": np.arange(1, 5)[None],
    }
    scipy.io.savemat(file, {"model": model}, do_compression=True)


def write_model_expression(file, face, offset):
    arrays = {
        "mu_exp": 1e3 * flat(offset),
        "w_exp": 1e3 * flat(face.expression),
        "sigma_exp": face.expression_sd[:, None],
    }
    scipy.io.savemat(file, arrays)


def write_exp_pca(folder, face, offset):
    """float32 mean and components one after the other, and a text of standard deviations."""
    rows = np.concatenate([flat(offset).T, flat(face.expression).T]) * 1e3
    (folder / "Exp_Pca.bin").write_bytes(struct.pack("<i", len(rows) - 1) + rows.astype("<f4").tobytes())
    (folder / "std_exp.txt").write_text(
        " ".join(f"{value:.6f}" for value in face.expression_sd) + "\n", encoding="ascii"
    )


def write_bfm_h5(file, face, offset, *, colours=False):
    import h5py

    with h5py.File(file, "w", libver="latest") as opened:
        groups = {
            "shape": (face.mean - offset, face.identity, face.identity_sd),
            "expression": (offset, face.expression, face.expression_sd),
        }
        if colours:
            groups["color"] = (np.full_like(face.mean, 0.5), face.identity / 10, face.identity_sd / 100)
        for name, (mean, basis, deviation) in groups.items():
            opened[f"{name}/model/mean"] = mean.reshape(-1).astype(np.float32)
            opened[f"{name}/model/pcaBasis"] = flat(basis).astype(np.float32)
            opened[f"{name}/model/pcaVariance"] = (deviation**2).astype(np.float32)
            opened[f"{name}/representer/cells"] = face.triangles.T.astype(np.int32)


def flame_arrays(face):
    """Metres; offsets per standard deviation, identity first."""
    directions = np.concatenate([face.identity * face.identity_sd, face.expression * face.expression_sd], axis=2)
    return {
        "v_template": face.mean / 1e3,
        "shapedirs": directions / 1e3,
        "f": face.triangles.astype(np.uint32),
        "posedirs": np.zeros((len(face.mean), 3, 36)),
        "weights": np.ones((len(face.mean), 5)) / 5,
    }


def write_flame_pickle(file, face, protocol=2):
    """As the published one: chumpy objects, a sparse regressor, text and numbers beside the arrays."""

    class Ch:
        def __init__(self, x):
            self.x = x
            self._dirty_vars = {"x"}
            self._itr = None

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    arrays = flame_arrays(face)
    document = {
        **arrays,
        "v_template": Ch(arrays["v_template"]),
        "shapedirs": Ch(np.asfortranarray(arrays["shapedirs"])),
        "J_regressor": scipy.sparse.csc_matrix(np.eye(2, 5)),
        "kintree_table": np.array([[4294967295, 0], [0, 1]], dtype=np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch")}
    modules["chumpy.ch"].Ch = Ch
    before = dict(sys.modules)
    sys.modules.update(modules)
    try:
        file.write_bytes(pickle.dumps(document, protocol=protocol))
    finally:
        for name in modules:
            sys.modules.pop(name)
            if name in before:
                sys.modules[name] = before[name]


def python2_pickle(arrays):
    """Protocol 0 as Python 2 writes it: arrays in chumpy objects whose state holds a set; bytes are quoted text."""
    entries = b"".join(b"S'%s'\n%ss" % (name.encode(), _python2_ch(array)) for name, array in arrays.items())
    return b"(d" + entries + b"."


def _python2_ch(array):
    code = array.dtype.str[1:].encode()
    shape = b"".join(b"I%d\n" % size for size in array.shape)
    quoted = repr(array.tobytes())[1:].encode()
    dtype = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb" % code
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    state = b"(I1\n(" + shape + b"t" + dtype + b"I00\nS" + quoted + b"\ntb"
    held = b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR"
    dirty = b"S'_dirty_vars'\nc__builtin__\nset\n((lS'x'\natRs"
    return held + b"(dS'x'\n" + made + state + b"s" + dirty + b"b"


def _matrix(array):
    array = np.asarray(array, dtype="<f4")
    return struct.pack("<ii", *array.shape) + array.tobytes(order="F")


def _vector(array, dtype):
    return struct.pack("<Q", len(array)) + np.asarray(array, dtype=dtype).tobytes()


def _text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def _pca(mean, basis, deviation, triangles):
    parts = [_matrix(flat(mean)), _matrix(flat(basis)), _matrix(deviation[:, None] ** 2)]
    return b"".join(parts) + _vector(triangles, "<i4")


def blendshapes(shapes):
    """The bytes of a blendshapes.bin; `shapes` maps names to offsets [V, 3] in mm."""
    return struct.pack("<Q", len(shapes)) + b"".join(_text(name) + _matrix(flat(x)) for name, x in shapes.items())


def surrey(face, *, version=1, expression=None, colours=False, uv=None, landmarks=None, texture_triangles=()):
    """The bytes of an eos model; `expression` is None, "pca" (with `face.expression`) or blendshapes by name."""
    no_colour = struct.pack("<ii", 0, 1) + struct.pack("<ii", 0, 0) + struct.pack("<ii", 0, 1) + struct.pack("<Q", 0)
    content = struct.pack("<I", version) + _pca(face.mean, face.identity, face.identity_sd, face.triangles)
    colour = np.full_like(face.mean, 0.5)
    content += _pca(colour, face.identity / 10, face.identity_sd / 100, face.triangles) if colours else no_colour
    if version >= 2 and expression is None:
        content += b"\x01"
    elif version >= 2 and isinstance(expression, str):
        model = _pca(np.zeros_like(face.mean), face.expression, face.expression_sd, face.triangles)
        content += b"\x00" + struct.pack("<i", 0) + model
    elif version >= 2:
        content += b"\x00" + struct.pack("<i", 1) + blendshapes(expression)
    if version >= 3:
        names = {} if landmarks is None else landmarks
        entries = b"".join(_text(name) + struct.pack("<i", vertex) for name, vertex in names.items())
        content += b"\x01" if landmarks is None else b"\x00" + struct.pack("<Q", len(names)) + entries
    content += _vector(np.zeros((0, 2)) if uv is None else uv, "<f8")
    return content + (_vector(np.asarray(texture_triangles).reshape(-1, 3), "<i4") if version >= 4 else b"")


def obj_text(vertices, polygons, uv=None):
    """An OBJ of the polygons, with `uv` at the vertices."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices]
    lines += [] if uv is None else [f"vt {u:.9g} {v:.9g}" for u, v in uv]
    corner = "{0}" if uv is None else "{0}/{0}"
    lines += ["f " + " ".join(corner.format(index + 1) for index in polygon) for polygon in polygons]
    return "\n".join([*lines, ""])


QUADS = [(k, k + SIDE, k + SIDE + 1, k + 1) for k in range(SIDE * (SIDE - 1)) if k % SIDE < SIDE - 1]
