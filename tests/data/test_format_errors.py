"""Every reader of FaceWarehouse, 300W-LP and AFLW2000-3D on files cut at each byte and with flipped bytes."""

import os
import random
import re
import time
from dataclasses import fields, is_dataclass

import pytest
import torch

from facerecon_torch.data.aflw import FittedPhoto, read_fitted_photo
from facerecon_torch.data.facewarehouse.landmarks74 import read_land, save_land
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.facewarehouse import QuadMesh, read_blendshapes, save_blendshapes, save_quads
from facerecon_torch.formats.format_errors import format_error
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from tests.data.aflw_mat import write_fitted_mat

_FLIPS = 1000


def _grid(rng, *shape):
    """Numbers that float32 holds exactly, also after 1 is added."""
    return (torch.rand(*shape, generator=rng, dtype=torch.float64) * 4096).round() / 16


def _shapes(rng):
    return (_grid(rng, 3, 5, 3) - 100) * 100 / 128  # a hundred times what float32 holds


def _mesh(rng):
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    return QuadMesh(vertices=_grid(rng, 4, 3) / 7, uv=_grid(rng, 4, 2) / 256, faces=faces, face_uv=faces)


def _read_mesh(file):
    mesh = read_polygon_mesh(file, n_vertices=4, exponent=2)
    if mesh.uv is None or len(mesh.triangles) != 2:  # a text does not say how many faces it has
        raise format_error(file, "faces", "2 with texture coordinates", len(mesh.triangles))
    return QuadMesh(vertices=mesh.vertices, uv=mesh.uv, faces=mesh.triangles, face_uv=mesh.triangles)


def _photo(rng):
    return FittedPhoto(*(_grid(rng, *shape) + 1 for shape in ((68, 2), (199,), (29,), (7,))))


def _mat(data_set, compressed):
    def save(photo, file):
        write_fitted_mat(file, data_set, photo, compressed=compressed)

    return _photo, save, lambda file: read_fitted_photo(file, data_set)


_FORMATS = {
    "shape.bs": (_shapes, save_blendshapes, read_blendshapes),
    "pose_0.obj": (_mesh, save_quads, _read_mesh),
    "pose_0.land": (lambda rng: _grid(rng, 74, 2), save_land, read_land),
    "lp.mat": _mat("w300lp", compressed=False),
    "packed.mat": _mat("w300lp", compressed=True),
    "aflw.mat": _mat("aflw2000", compressed=False),
}


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if value is None:
        return []
    parts = [getattr(value, f.name) for f in fields(value)] if is_dataclass(value) else value
    return [tensor for part in parts for tensor in _tensors(part)]


@pytest.fixture(params=_FORMATS)
def written(request, tmp_path, rng):
    make, save, read = _FORMATS[request.param]
    value, file = make(rng), tmp_path / request.param
    save(value, file)
    return value, file, save, read


def test_a_written_file_is_read_back_identically(written, tmp_path):
    value, file, save, read = written
    again = read(file)
    assert type(again) is type(value)
    for got, want in zip(_tensors(again), _tensors(value), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    second = tmp_path / f"again{file.suffix}"
    save(again, second)
    # The description that opens a .mat holds the time of writing.
    skipped = 128 if file.suffix == ".mat" else 0
    assert second.read_bytes()[skipped:] == file.read_bytes()[skipped:]


def _promise_holds(file, read, want):
    """An error that names the file, or finite numbers of the right shapes."""
    message = None
    try:
        got = read(file)
    except DataFileError as error:
        message = str(error)
    if message is not None:
        assert re.match(rf"{re.escape(str(file))}: .+: expected .+; got .+", message, re.DOTALL)
        return False
    for a, b in zip(_tensors(got), _tensors(want), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert bool(torch.isfinite(a).all())
        assert float(a.double().abs().max()) < 1e13
    return True


def _offsets(size):
    """Every byte of a small file, and some bytes of a large one."""
    if size <= 3000:
        return list(range(size))
    return sorted({*range(300), *range(300, size, 11), *range(size - 300, size)})


def test_every_truncation_is_refused(written):
    value, file, _, read = written
    whole = file.stat().st_size
    passed = []
    for size in reversed(_offsets(whole)):
        os.truncate(file, size)
        if _promise_holds(file, read, value):
            passed.append(size)
    # The text of an OBJ loses nothing with its last end of line or its last normal, which is not read.
    spare = 2 if file.suffix == ".obj" else 0
    assert all(size >= whole - spare for size in passed)


def test_flipped_bytes_give_an_error_or_finite_numbers(written):
    value, file, _, read = written
    content = file.read_bytes()
    draw = random.Random(7)
    start, refused = time.monotonic(), 0
    for k in range(_FLIPS):
        damaged = bytearray(content)
        # Headers are a small share of some files: half of the flips go there.
        end = min(len(content), 400) if k % 2 else len(content)
        for _ in range(1 + k % 3):
            damaged[draw.randrange(end)] ^= draw.randrange(1, 256)
        file.write_bytes(damaged)
        refused += not _promise_holds(file, read, value)
    assert refused > 0
    assert time.monotonic() - start < 60


def test_bytes_behind_the_end_are_refused_where_the_size_is_known(written):
    _, file, _, read = written
    if file.suffix in (".bs", ".land"):
        file.write_bytes(file.read_bytes() + b"1 1\r\n")
        with pytest.raises(DataFileError, match=re.escape(str(file))):
            read(file)


def test_nothing_and_a_folder_are_named(written):
    _, file, _, read = written
    file.unlink()
    with pytest.raises(DataFileError, match="existing file; got nothing"):
        read(file)
    file.mkdir()
    with pytest.raises(DataFileError, match="got a folder"):
        read(file)
