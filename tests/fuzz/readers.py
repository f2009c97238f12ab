"""Readers with a small file that each reads: name -> (folder -> (file, function that reads it))."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import scipy.io
import torch
from PIL import Image, features
from torch import Tensor

from facerecon_torch.cascade.checkpoint import load_checkpoint
from facerecon_torch.commands.export.parameters import _of_results
from facerecon_torch.commands.infer.inputs.manifest import manifest_rows
from facerecon_torch.commands.train.methods import train_methods
from facerecon_torch.data.bosphorus.bnt import read_bnt, write_bnt
from facerecon_torch.data.bosphorus.landmarks import read_landmarks, write_landmarks
from facerecon_torch.data.frgc.files import read_abs, read_texture, write_abs, write_texture
from facerecon_torch.data.frgc.signature_set import read_signature_set
from facerecon_torch.data.prepared import load_prepared
from facerecon_torch.export.face_table import FaceTable, ImageRow
from facerecon_torch.export.meshes import save_ply
from facerecon_torch.export.parameters import save_parameters_json
from facerecon_torch.external.mesh_file import read_output
from facerecon_torch.formats.checked_columns import load_columns, save_columns
from facerecon_torch.formats.json_file import read_json
from facerecon_torch.formats.npz_file import read_npz
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from facerecon_torch.images.read import read_pixels
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.model.importers.facescape import read_facescape, read_facescape_v13
from facerecon_torch.model.importers.surrey import read_surrey
from facerecon_torch.model.importers.tensor_file import read_tensor_core
from facerecon_torch.model.io import load_model, save_model
from facerecon_torch.structures import Mesh
from facerecon_torch.synthetic.dataset import load_set, render_set
from facerecon_torch.synthetic.layouts import LayoutSpec, load_truth
from facerecon_torch.synthetic.layouts import write_set as write_set_in_layout
from facerecon_torch.synthetic.spec import SyntheticSpec
from tests.data.bosphorus.test_bosphorus_bnt import scan_of
from tests.data.bosphorus.test_bosphorus_landmarks import landmarks_of
from tests.data.frgc.signature_writer import write_signature_set
from tests.data.frgc.test_frgc_abs import grid_of
from tests.data.frgc.test_frgc_texture import texture_of
from tests.data.test_format_errors import _FORMATS as DATA_FORMATS
from tests.data.test_frgc_recordings import _presentations
from tests.data.test_prepared import make_shard, write_set
from tests.export.fitted_faces import drawn_faces
from tests.model.importers import small_faces
from tests.model.importers.test_facescape import N_EXP, N_ID, V, content
from tests.model.importers.test_linear_format_errors import FORMATS as LINEAR_FORMATS
from tests.model.importers.writers_linear import small_face, surrey
from tests.tiny_model import tiny_bilinear, tiny_linear
from tests.tiny_world import make_samples, make_setup

__all__ = ["READERS", "tensors"]

Reader = Callable[[Path], tuple[Path, Callable[[], Any]]]
POINTS = np.random.default_rng(0).uniform(10, 90, (68, 2)).round(3)


def tensors(value: Any) -> Iterator[Tensor]:
    """The floating point tensors inside what a reader returned."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            yield torch.from_numpy(np.ascontiguousarray(value, dtype=np.float64))
    elif isinstance(value, torch.nn.Module):
        for tensor in value.state_dict().values():
            yield from tensors(tensor)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors(entry)


def _file(name: str, write: Callable[[Path], object], read: Callable[[Path], Any]) -> Reader:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        write(folder / name)
        return folder / name, lambda: read(folder / name)

    return make


def _data(name: str) -> Reader:
    make, save, read = DATA_FORMATS[name]
    value = make(torch.Generator().manual_seed(0))
    return _file(name, lambda path: save(value, path), read)


def _table(path: Path) -> None:
    columns: dict[str, Any] = {"image": ["a.jpg", "b.jpg"]}
    columns |= {f"{axis}{k}": [POINTS[k, j]] * 2 for k in range(68) for j, axis in enumerate("xy")}
    (pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table)(pa.table(columns), path)


def _openface(path: Path) -> None:
    """One picture's faces: all x, then all y, then points in space."""
    names = ["face", *(f" {axis}_{k}" for axis in "xyX" for k in range(68))]
    rows = [[face, *POINTS.T.flatten(), *range(68)] for face in (0, 1)]
    path.write_text("\n".join(", ".join(map(str, row)) for row in [names, *rows]) + "\n")


def _list_table(path: Path) -> None:
    pa.parquet.write_table(pa.table({"file": ["a.jpg", "b.jpg"], "landmarks_2d": [POINTS.tolist()] * 2}), path)


def _result(path: Path) -> None:
    face = drawn_faces(1, 1, torch.Generator().manual_seed(0))[0]
    points = torch.from_numpy(POINTS[:66]).clone()
    points[49:] = torch.nan
    save_parameters_json(replace(face, landmarks_2d=points), path, image="a.jpg", number=0, expression_names=("smile",))


def _detections(path: Path) -> Any:
    """The landmarks in a table or a result that were found: an empty cell is an error of its own picture."""
    (faces,) = FileLandmarks(source=path, convention="mediapipe").detect(
        [torch.zeros(3, 100, 100)], paths=[Path("a.jpg")]
    )
    return [face.points[17:] if face.points[:17].isnan().all() else face.points for face in faces]


def _columns(path: Path) -> None:
    save_columns(path, {"a": torch.rand(5, 3), "b": torch.arange(5)}, {"document": "{}"})


def _checkpoint(folder: Path) -> tuple[Path, Callable[[], Any]]:
    setup = make_setup()
    outcome = train_methods(setup, make_samples(setup, people=4, images=3, seed=0), {}, names=("cascade",))
    outcome.reconstructor.save_pretrained(folder / "c.safetensors")

    def read() -> Any:
        return [stage.ridge.weight for stage in load_checkpoint(folder / "c.safetensors").cascade.stages]

    return folder / "c.safetensors", read


def _image_kinds() -> dict[str, tuple[str, Image.Image, dict[str, str]]]:
    """Name -> format, image and options of Pillow's `save`."""
    values = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    rgb, deep = Image.fromarray(values), Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    real = Image.fromarray(values[..., 0].astype(np.float32) / 255)
    modes = {
        "JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "P", "LA", "1", "I;16"), "WEBP": ("RGB", "RGBA"),
        "TIFF": ("RGB", "I;16", "F", "P", "1"), "BMP": ("RGB", "P"), "GIF": ("P",), "PPM": ("RGB", "L"),
        "JPEG2000": ("RGB",), "AVIF": ("RGB",) if features.check("avif") else (),
    }  # fmt: skip
    images = {"I;16": deep, "F": real}
    kinds = {
        f"image {kind} {mode}": (kind, images.get(mode) or rgb.convert(mode), {})
        for kind in modes
        for mode in modes[kind]
    }
    lzw = {f"{name} lzw": (*known[:2], {"compression": "tiff_lzw"}) for name, known in kinds.items() if "TIFF" in name}
    return kinds | lzw


def _image(kind: str, image: Image.Image, options: dict[str, str]) -> Reader:
    def read(path: Path) -> Any:
        pixels = read_pixels(path)
        if pixels.is_floating_point() and not 0 <= float(pixels.min()) <= float(pixels.max()) <= 1:
            raise AssertionError("values outside [0, 1]")
        return pixels

    return _file("a.jpg", lambda path: image.save(path, kind, **options), read)


def _points(path: Path) -> None:
    lines = "\n".join(f"{x} {y}" for x, y in POINTS)
    if path.suffix == ".npy":
        np.save(path, POINTS)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"faces": [{"points": POINTS.tolist()}]}))
    else:
        path.write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n" * 2)


def _mesh_points(path: Path) -> None:
    """A mesh of MediaPipe in shares of the picture's size."""
    mesh = np.random.default_rng(1).uniform(0.1, 0.9, (478, 3)).round(3)
    np.save(path, mesh) if path.suffix == ".npy" else path.write_text(json.dumps([mesh.tolist()]))


def _prepared(name: str) -> Reader:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        write_set(folder, [make_shard(["a1", "b1"])])

        def read() -> Any:
            found = load_prepared(folder)
            return [found.parameters, found.meshes, found.rotation, found.translation]

        return folder / name, read

    return make


def _synthetic(name: str) -> Reader:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        render_set(SyntheticSpec(subjects=1, images_per_subject=1, size=128), folder, workers=1, progress=False)
        return folder / name, lambda: load_set(folder).vertices

    return make


def _layout(name: str) -> Reader:
    def make(folder: Path) -> tuple[Path, Callable[[], Any]]:
        spec = LayoutSpec(layout="facewarehouse", subjects=1, samples=1)
        write_set_in_layout(spec, folder, workers=1, progress=False)
        return folder / name, lambda: load_truth(folder).vertices

    return make


def _results(folder: Path) -> tuple[Path, Callable[[], Any]]:
    table = FaceTable(("smile",))
    table.append(ImageRow(input=0, path="photo.jpg"), drawn_faces(2, 1, torch.Generator().manual_seed(0)))
    path = table.save(folder / "in" / "part-00000.parquet")
    return path, lambda: _of_results(path.parent)


def _facescape(folder: Path) -> tuple[Path, Callable[[], Any]]:
    path = folder / "facescape_bm_v1.6.npz"
    np.savez(path, **content())
    return path, lambda: read_facescape(path)


def _facescape_v13(folder: Path) -> tuple[Path, Callable[[], Any]]:
    faces = small_faces.faces(6, N_EXP, rank=N_ID).reshape(6, N_EXP, 3 * V)
    mix, singular, rest = torch.linalg.svd(faces.reshape(6, -1), full_matrices=False)
    path = folder / "core_6_3_4.npy"
    np.save(path, (singular[:N_ID, None] * rest[:N_ID]).reshape(N_ID, N_EXP, 3 * V).numpy())
    np.save(folder / "factors_id_6_3_4.npy", mix[:, :N_ID].numpy())
    mesh = small_faces.write_mesh(folder / "mesh.obj")
    return path, lambda: read_facescape_v13(path, mesh)


def _tensor_core(folder: Path) -> tuple[Path, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    path = small_faces.write_tensor(folder / "core.tensor", rng.normal(size=(4, 3, 3 * V)))
    people = small_faces.write_tensor(folder / "u_0.tensor", rng.normal(size=(5, 4)))
    expressions = small_faces.write_tensor(folder / "u_1.tensor", rng.normal(size=(4, 3)))
    mesh = small_faces.write_mesh(folder / "template.obj")
    return path, lambda: read_tensor_core(path, mesh, identity_rows=people, expression_rows=expressions)


def _surrey_contours(folder: Path) -> tuple[Path, Callable[[], Any]]:
    path, model = folder / "contours.json", folder / "model.bin"
    path.write_text(json.dumps({"model_contour": {"right_contour": [1, 5, 9], "left_contour": [2, 6, 10]}}))
    model.write_bytes(surrey(small_face()))
    return path, lambda: read_surrey(model, contours=path)


def _output(path: Path) -> None:
    """A mesh or landmarks as other systems write them."""
    mesh = _mesh()
    arrays = {"vertices": mesh.vertices.numpy(), "tri": mesh.triangles.numpy()}
    if path.suffix == ".mat":
        scipy.io.savemat(path, arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, arrays["vertices"])
    else:
        np.savetxt(path, POINTS)


def _manifest(path: Path) -> None:
    columns: dict[str, Any] = {"path": ["a.jpg", "b.jpg"], "subject": ["p", None], "id": ["1", "2"]}
    if path.suffix == ".csv":
        columns |= {f"box_{side}": [1.5, 2.5] for side in ("x0", "y0", "x1", "y1")}
    else:
        columns |= {"box": [[1.0, 2.0, 3.0, 4.0], None], "landmarks": [POINTS.tolist(), None]}
    (pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table)(pa.table(columns), path)


def _boxes(path: Path) -> Any:
    """The boxes of a manifest: its landmarks may be missing, and are checked with their image."""
    return [torch.tensor(row.box, dtype=torch.float64) for row in manifest_rows(path) if row.box is not None]


def _mesh() -> Mesh:
    vertices, _ = small_faces.grid()
    return Mesh(vertices=vertices.float(), triangles=small_faces.triangles(), uv=None)


READERS: dict[str, Reader] = {
    **{name: _image(*known) for name, known in _image_kinds().items()},
    **{f"points {suffix}": _file(f"a.{suffix}", _points, _detections) for suffix in ("npy", "json", "pts")},
    **{f"importer {make.__name__}": make for make in LINEAR_FORMATS},
    "importer facescape 1.6": _facescape,
    "importer facescape 1.3": _facescape_v13,
    "importer tensor core": _tensor_core,
    "importer surrey contours": _surrey_contours,
    **{f"data {name}": _data(name) for name in DATA_FORMATS},
    "bosphorus bnt": _file("a.bnt", partial(write_bnt, scan_of()), read_bnt),
    "bosphorus lm2": _file("a.lm2", partial(write_landmarks, landmarks_of(2)), read_landmarks),
    "bosphorus lm3": _file("a.lm3", partial(write_landmarks, landmarks_of(3)), read_landmarks),
    "frgc abs": _file("a.abs", partial(write_abs, grid_of()), read_abs),
    "frgc abs.gz": _file("a.abs.gz", partial(write_abs, grid_of()), read_abs),
    "frgc ppm": _file("a.ppm", partial(write_texture, texture_of()), read_texture),
    "frgc ppm.gz": _file("a.ppm.gz", partial(write_texture, texture_of()), read_texture),
    "frgc signature set": _file("a.xml", partial(write_signature_set, _presentations()), read_signature_set),
    "mesh ply": _file("a.ply", partial(save_ply, _mesh()), read_polygon_mesh),
    **{f"output {suffix}": _file(f"a.{suffix}", _output, read_output) for suffix in ("mat", "npz", "npy", "txt")},
    **{f"manifest {suffix}": _file(f"a.{suffix}", _manifest, _boxes) for suffix in ("csv", "parquet")},
    "npz": _file("a.npz", lambda path: np.savez(path, a=POINTS, b=np.arange(4)), read_npz),
    "points csv": _file("a.csv", _table, _detections),
    "points parquet": _file("a.parquet", _table, _detections),
    "points openface": _file("a.csv", _openface, _detections),
    "points lists": _file("a.parquet", _list_table, _detections),
    "points result": _file("a.json", _result, _detections),
    **{f"points mesh {suffix}": _file(f"a.{suffix}", _mesh_points, _detections) for suffix in ("npy", "json")},
    "model bilinear": _file("m.safetensors", lambda path: save_model(tiny_bilinear(), path), load_model),
    "model linear": _file("m.safetensors", lambda path: save_model(tiny_linear(), path), load_model),
    "cascade": _checkpoint,
    "checked columns": _file("c.safetensors", _columns, load_columns),
    "json object": _file("a.json", lambda path: path.write_text(json.dumps({"a": [1.5, {"b": None}]})), read_json),
    "results table": _results,
    "synthetic header": _synthetic("set.json"),
    "synthetic tables": _synthetic("truth.safetensors"),
    "layout header": _layout("truth.json"),
    "layout tables": _layout("truth.safetensors"),
    "prepared header": _prepared("set.json"),
    "prepared tables": _prepared("tables.safetensors"),
}
