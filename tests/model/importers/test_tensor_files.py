"""Cores, raw tensors and MATLAB files: byte layouts, units, priors, and what damage says."""

import struct

import numpy as np
import pytest
import scipy.io
import torch
from torch.testing import assert_close

from facerecon_torch.errors import ModelFileError
from facerecon_torch.geometry.align import align_rigid
from facerecon_torch.model.hosvd import hosvd
from facerecon_torch.model.importers.building import BuildSpec
from facerecon_torch.model.importers.facewarehouse import read_facewarehouse_mat
from facerecon_torch.model.importers.tensor_file import read_core_bin, read_raw_tensor, read_tensor_core
from tests.model.importers import small_faces

V = small_faces.N_VERTICES


@pytest.fixture
def shapes():
    return small_faces.faces()


@pytest.fixture
def reduced(shapes):
    """HOSVD of the faces in dm, numpy: core [3 V, 4, 3], U_id [5, 4], U_exp [4, 3]; and their faces in mm."""
    answer = hosvd((shapes / 100).permute(2, 3, 0, 1).reshape(3 * V, 5, 4), 4, 3)
    arrays = [a.numpy() for a in (answer.core, answer.identity_rows, answer.expression_rows)]
    return *arrays, 100 * torch.from_numpy(np.einsum("rie,pi,xe->pxr", *arrays)).reshape(5, 4, V, 3)


@pytest.fixture
def mesh(tmp_path):
    return small_faces.write_mesh(tmp_path / "template.obj")


def test_tensor_core_and_its_rows(tmp_path, mesh, reduced):
    core, people, expressions, faces = reduced
    file = small_faces.write_tensor(tmp_path / "blendshape_core.tensor", core.transpose(1, 2, 0))
    small_faces.write_tensor(tmp_path / "blendshape_u_0.tensor", people)
    small_faces.write_tensor(tmp_path / "blendshape_u_1", expressions)
    # i50 e25 layout: the first index of the core is identity, the second expression, the third the coordinate
    assert struct.unpack("<3i", file.read_bytes()[:12]) == (4, 3, 3 * V)
    second = struct.unpack_from("<d", file.read_bytes(), 20)[0]
    assert second == core[0, 0, 1]  # column-major: the expression index runs first
    model = read_tensor_core(file, mesh)
    assert_close(small_faces.bilinear_shapes(model), faces, rtol=0, atol=1e-4)
    assert torch.equal(model.triangles, small_faces.triangles())
    assert (model.summary["mm_per_unit"], model.summary["people"]) == (100.0, 5)
    assert_close(model.factors["identity_rows"].double(), torch.from_numpy(people), rtol=0, atol=1e-6)
    named = read_tensor_core(file, mesh, identity_rows=tmp_path / "blendshape_u_0.tensor", mm_per_unit=100.0)
    assert torch.equal(named.factors["core"], model.factors["core"])


def test_tensor_core_needs_its_rows(tmp_path, mesh, reduced):
    core, people, expressions, _ = reduced
    file = small_faces.write_tensor(tmp_path / "core.tensor", core.transpose(1, 2, 0))
    with pytest.raises(ModelFileError, match=r"core\.tensor: rows: expected a file blendshape_u_0"):
        read_tensor_core(file, mesh)
    small_faces.write_tensor(tmp_path / "blendshape_u_0", people[:, :3])
    small_faces.write_tensor(tmp_path / "blendshape_u_1", expressions)
    with pytest.raises(ModelFileError, match=r"blendshape_u_0: columns: expected 4 as the core has; got 3"):
        read_tensor_core(file, mesh)


def test_tensor_core_refuses_every_truncation_and_wrong_counts(tmp_path, mesh, reduced):
    core, people, expressions, _ = reduced
    file = small_faces.write_tensor(tmp_path / "core.tensor", core.transpose(1, 2, 0))
    rows = small_faces.write_tensor(tmp_path / "blendshape_u_0", people)
    small_faces.write_tensor(tmp_path / "blendshape_u_1", expressions)
    for target in (rows, file):
        whole = target.read_bytes()
        for length in [*range(0, len(whole), 1 if target == rows else 997), len(whole) - 1]:
            target.write_bytes(whole[:length])
            with pytest.raises(ModelFileError, match=f"{target}: .*expected .*; got "):
                read_tensor_core(file, mesh)
        target.write_bytes(whole)
    whole = file.read_bytes()
    for head in (
        struct.pack("<3i", 0, 3, 126),
        struct.pack("<3i", 2**30, 2**30, 2**30),
        struct.pack("<3i", -4, -3, 126),
    ):
        file.write_bytes(head + whole[12:])
        with pytest.raises(ModelFileError, match=r"core\.tensor: (counts|size): expected"):
            read_tensor_core(file, mesh)
    file.write_bytes(whole[:100] + struct.pack("<d", float("nan")) + whole[108:])
    with pytest.raises(ModelFileError, match=r"core\.tensor: values: expected finite"):
        read_tensor_core(file, mesh)
    file.write_bytes(small_faces.write_tensor(tmp_path / "x", core[:-3].transpose(1, 2, 0)).read_bytes())
    with pytest.raises(ModelFileError, match=r"core\.tensor: rows: expected 126, three for each vertex of .*; got 123"):
        read_tensor_core(file, mesh)


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_raw_tensor_is_built_like_the_folders(tmp_path, mesh, shapes, unit):
    turned = small_faces.moved(shapes)
    file = tmp_path / "raw_tensor.bin"
    file.write_bytes((turned / unit).numpy().astype("<f4").tobytes())
    model = read_raw_tensor(file, mesh, n_people=5)
    rebuilt = small_faces.bilinear_shapes(model)
    back = align_rigid(rebuilt.flatten(1, 2), turned.flatten(1, 2))
    assert_close(back.apply(rebuilt.flatten(1, 2)), turned.flatten(1, 2), rtol=0, atol=2e-3)
    assert (model.summary["mm_per_unit"], model.summary["expressions"]) == (unit, 4)
    assert model.summary["unit_from"] == "the size of the mean face"
    fixed = read_raw_tensor(file, mesh, n_expressions=4, mm_per_unit=unit, spec=BuildSpec(identity_rank=2))
    assert fixed.factors["core"].shape == (V, 3, 2, 4)


def test_raw_tensor_counts(tmp_path, mesh):
    file = tmp_path / "raw_tensor.bin"
    faces = small_faces.faces(2, 47)
    file.write_bytes(faces.numpy().astype("<f4").tobytes())
    assert read_raw_tensor(file, mesh).expression_names[1] == "EyeBlink_L"  # 47 expressions need no count
    for counts in ({"n_people": 3}, {"n_expressions": 48}, {"n_people": 2, "n_expressions": 46}):
        with pytest.raises(ModelFileError, match=r"raw_tensor\.bin: size: expected whole people of"):
            read_raw_tensor(file, mesh, **counts)
    with pytest.raises(ValueError, match="must be at least 1; got 0"):
        read_raw_tensor(file, mesh, n_people=0)
    whole = file.read_bytes()
    for content in (whole[:-4], whole + whole[: 12 * V], b"", whole[:10]):
        file.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"raw_tensor\.bin: size: expected"):
            read_raw_tensor(file, mesh)
    for value in (float("nan"), float("inf"), 1e20):
        place = 4 * (3 * V * 60 + 5)
        file.write_bytes(whole[:place] + struct.pack("<f", value) + whole[place + 4 :])
        with pytest.raises(ModelFileError, match=r"raw_tensor\.bin: person 1: expected finite"):
            read_raw_tensor(file, mesh)


def core_bin(path, shapes):
    """Reduced in identity only: int32 3 V, E, I; float32 [I, E, 3 V]. Returns the rows of U_id, too."""
    answer = hosvd(shapes.permute(2, 3, 0, 1).reshape(3 * V, *shapes.shape[:2]), 4, shapes.shape[1])
    core = torch.einsum("rie,xe->ixr", answer.core, answer.expression_rows)
    head = struct.pack("<3i", 3 * V, shapes.shape[1], 4)
    path.write_bytes(head + core.numpy().astype("<f4").tobytes())
    return answer.identity_rows.numpy()


def test_core_bin_with_rows_gives_the_faces(tmp_path, mesh, shapes):
    rows = core_bin(tmp_path / "model.bin", shapes)
    u_id = small_faces.write_tensor(tmp_path / "u_0", rows)
    model = read_core_bin(tmp_path / "model.bin", mesh, identity_rows=u_id)
    truncated = torch.einsum("pi,qi,qxvd->pxvd", *(torch.from_numpy(rows),) * 2, shapes)
    assert_close(small_faces.bilinear_shapes(model), truncated, rtol=0, atol=1e-3)
    assert_close(model.factors["expression_rows"], torch.eye(4))


def test_core_bin_without_rows_states_its_assumption(tmp_path, mesh):
    shapes = small_faces.faces(40, 4, rank=12)
    rows = core_bin(tmp_path / "model.bin", shapes)
    model = read_core_bin(tmp_path / "model.bin", mesh, n_people=40)
    assert model.summary["identity_prior"] == "assumed: orthonormal columns over 40 people"
    neutral = model.mean_vertices().double()
    assert float((neutral - shapes.mean(dim=(0, 1))).norm(dim=-1).max()) < 5  # mm
    mean = model.factors["identity_rows"].mean(dim=0).double()
    assert_close(mean[0].abs(), torch.from_numpy(rows[:, 0]).abs().mean(), rtol=0.05, atol=0)
    variance = model.factors["identity_rows"].double().var(dim=0, correction=0)
    assert_close(variance[1:], torch.full((3,), 1 / 40, dtype=torch.float64), rtol=1e-4, atol=0)
    # a core whose leading factor points the other way is the same model, but for the float32 rows: 100 mm to 2^-23
    content = np.frombuffer((tmp_path / "model.bin").read_bytes()[12:], "<f4").reshape(4, -1).copy()
    content[0] *= -1
    (tmp_path / "mirrored.bin").write_bytes((tmp_path / "model.bin").read_bytes()[:12] + content.tobytes())
    mirrored = read_core_bin(tmp_path / "mirrored.bin", mesh, n_people=40).mean_vertices().double()
    assert_close(mirrored, neutral, rtol=0, atol=1e-4)


def mat_content(reduced, **changes):
    core, people, expressions, _ = reduced
    valid = np.zeros((V, 1), dtype=bool)
    valid[3:30] = True
    boundary = np.tile(np.arange(1.0, 4.0), (17, 1))
    boundary[5, 2] = 0
    boundary[6, 1:] = np.nan
    content = {
        "Bilinear": {"Cr": core, "Wids": people, "Weps": expressions},
        "faces": (small_faces.triangles().numpy() + 1).astype(np.float64),
        "Landmarks": {"inner": np.arange(1.0, 50.0)[None] % V + 1, "boundary": boundary},
        "Segmentation": {"segValid": valid, "segCenter": np.array([[4, 9, 10]], dtype=np.uint16)},
    }
    return content | changes


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_mat_file_with_structs(tmp_path, reduced, compressed, wrapped):
    content = mat_content(reduced)
    content = {"FWM5": content} if wrapped else content
    scipy.io.savemat(tmp_path / "FWM5.mat", content, do_compression=compressed)
    model = read_facewarehouse_mat(tmp_path / "FWM5.mat")
    assert_close(small_faces.bilinear_shapes(model), reduced[3], rtol=0, atol=1e-4)
    assert torch.equal(model.triangles, small_faces.triangles())
    assert model.summary["mm_per_unit"] == 100.0
    assert model.tables["inner_landmarks"].tolist() == [k % V for k in range(1, 50)]
    assert model.tables["contour_lines"][4:8].tolist() == [[0, 1, 2], [0, 1, -1], [0, -1, -1], [0, 1, 2]]
    assert model.tables["whole_vertices"].tolist() == list(range(3, 30))
    assert model.tables["centre_vertices"].tolist() == [3, 8, 9]


def test_mat_file_with_rows_by_axis_and_clockwise_faces(tmp_path, reduced):
    core, people, expressions, faces = reduced
    planar = core.reshape(V, 3, 4, 3).transpose(1, 0, 2, 3).reshape(3 * V, 4, 3)
    content = mat_content((planar, people, expressions, faces))
    content["faces"] = content["faces"][:, ::-1]
    scipy.io.savemat(tmp_path / "a.mat", {k: content[k] for k in ("Bilinear", "faces")})
    model = read_facewarehouse_mat(tmp_path / "a.mat")
    assert_close(small_faces.bilinear_shapes(model), faces, rtol=0, atol=1e-4)
    assert model.summary["rows"] == "all x, all y, all z"
    assert (model.summary["triangles_turned"], model.tables) == (True, {})


def without(content, struct_name, field):
    return content | {struct_name: {k: v for k, v in content[struct_name].items() if k != field}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: without(c, "Bilinear", "Wids"), r"Bilinear\.Wids: expected a variable of this name"),
        (lambda c: {"faces": c["faces"]}, r"Bilinear\.Cr: expected a variable of this name; got faces"),
        (lambda c: c | {"Bilinear": c["Bilinear"] | {"Cr": c["Bilinear"]["Cr"][:-1]}}, "three rows for each vertex"),
        (lambda c: c | {"Bilinear": c["Bilinear"] | {"Weps": np.ones((4, 2))}}, r"Bilinear\.Weps: expected 3 columns"),
        (
            lambda c: c | {"Bilinear": c["Bilinear"] | {"Cr": "text"}},
            r"Bilinear\.Cr: expected a real numeric array of 3",
        ),
        (
            lambda c: c | {"Bilinear": c["Bilinear"] | {"Wids": np.full((5, 4), np.nan)}},
            r"Bilinear\.Wids: expected finite",
        ),
        (lambda c: c | {"faces": c["faces"] - 1}, r"faces: expected whole numbers in 1\.\.42; got 0 to 41"),
        (lambda c: c | {"faces": c["faces"] + 0.5}, r"faces: expected whole numbers"),
        (lambda c: c | {"Landmarks": {"inner": np.ones((1, 48))}}, r"Landmarks\.inner: expected 49 vertices; got 48"),
        (lambda c: c | {"Landmarks": {"boundary": np.ones((16, 3))}}, r"Landmarks\.boundary: expected .* 17 rows"),
        (lambda c: c | {"Landmarks": {"boundary": np.zeros((17, 3))}}, r"lines that start with a vertex"),
        (lambda c: c | {"Segmentation": {"segCenter": np.full((1, 2), 43)}}, r"segCenter: expected whole numbers"),
    ],
)
def test_mat_file_refuses_what_does_not_fit(tmp_path, reduced, change, message):
    scipy.io.savemat(tmp_path / "a.mat", change(mat_content(reduced)))
    with pytest.raises(ModelFileError, match=f"{tmp_path / 'a.mat'}: .*{message}|{message}"):
        read_facewarehouse_mat(tmp_path / "a.mat")


def test_mat_file_of_version_7_3_says_what_to_do(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 10)
    with pytest.raises(ModelFileError, match=r"MATLAB 7\.3 \(HDF5\): save it again"):
        read_facewarehouse_mat(tmp_path / "a.mat")


def test_cut_mat_files_name_the_place(tmp_path, reduced):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, mat_content(reduced))
    whole = file.read_bytes()
    for length in [*range(0, 400, 7), *range(400, len(whole), 311), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=f"{file}: .*expected .*; got "):
            read_facewarehouse_mat(file)


def test_damaged_mat_files_give_an_error_or_a_finite_model(tmp_path, reduced):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, mat_content(reduced))
    whole = file.read_bytes()
    draw = np.random.default_rng(0)
    for place in [*range(128, 330), *draw.integers(0, len(whole), 40).tolist()]:
        changed = bytearray(whole)
        changed[place] ^= int(draw.integers(1, 256))
        file.write_bytes(bytes(changed))
        model, message = model_or_message(file)
        assert (model is None and str(file) in message) or all(
            bool(torch.isfinite(array).all()) for array in model.factors.values()
        )


def model_or_message(file):
    try:
        return read_facewarehouse_mat(file), ""
    except ModelFileError as error:
        return None, str(error)
