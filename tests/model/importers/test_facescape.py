"""FaceScape's two versions: layouts, priors of the identity weights, the face cut out of the head, and damage."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.facescape import read_facescape, read_facescape_v13
from tests.model.importers import small_faces

V, N_EXP, N_ID = small_faces.N_VERTICES, 4, 3


def content(seed=0):
    """Arrays of a v1.6 file: the core's first identity factor is the mean face, negative as the real ones are."""
    draw = np.random.default_rng(seed)
    core = draw.normal(0, 40, (3 * V, N_EXP, N_ID))
    mean = small_faces.faces(1, N_EXP)[0].numpy().reshape(N_EXP, 3 * V)
    core[:, :, 0] = -30 * mean.T
    vertices, quads = small_faces.grid()
    return {
        "shape_bm_core": core,
        "id_mean": np.array([-1 / 30, 0.0, 0.001]),
        "id_var": np.array([1e-6, 2e-4, 3e-4]),
        "fv_indices": quads.numpy() + 1,
        "ft_indices": quads.numpy()[:, ::-1] + 1,
        "texcoords": np.concatenate([vertices[:, :2].numpy()[::-1] / 400 + 0.5, np.zeros((V, 1))], axis=1),
        "v_indices_front": np.arange(6, V),
        "fv_indices_front": quads.numpy()[5:] - 6,
        "vert_10to16_dict": np.array({"a": 1}, dtype=object),
        "exp_gmm_weights": np.ones(5) / 5,
    }


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "facescape_bm_v1.6.npz", **content())
    return tmp_path / "facescape_bm_v1.6.npz"


def test_expressions_are_rows_and_priors_are_the_files(file):
    arrays = content()
    imported = read_facescape(file)
    model = imported.make_model(None)
    alpha = torch.tensor([-0.03, 0.01, 0.02])
    for k in range(N_EXP):
        face = arrays["shape_bm_core"].dot(alpha.double().numpy()).dot(np.eye(N_EXP)[k]).reshape(-1, 3)
        assert_close(model.vertices(alpha, torch.eye(N_EXP)[k]).double(), torch.from_numpy(face), rtol=0, atol=1e-3)
    assert_close(model.identity_mean.double(), torch.from_numpy(arrays["id_mean"]), rtol=0, atol=1e-7)
    assert_close(model.identity_variance.double(), torch.from_numpy(arrays["id_var"]), rtol=1e-3, atol=0)
    # weights that add up to 1 are in the gauge already, so the neutral face stays neutral
    assert_close(model.fix_gauge(alpha, torch.eye(N_EXP)[2])[1], torch.eye(N_EXP)[2])
    assert model.expression_weights(torch.eye(N_EXP)).argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert (imported.topology_name, imported.expression_names[0]) == (f"facescape_{V}", "neutral")
    assert (imported.summary["mm_per_unit"], imported.summary["version"]) == (1.0, "1.6")


def test_triangles_and_uv_of_the_head_and_of_the_face(file):
    head = read_facescape(file)
    assert torch.equal(head.triangles, small_faces.triangles())
    first = {
        int(v): int(t) for v, t in zip(content()["fv_indices"].ravel()[::-1], content()["ft_indices"].ravel()[::-1])
    }
    assert head.uv[0].tolist() == pytest.approx(content()["texcoords"][first[1] - 1, :2].tolist(), abs=1e-6)
    face = read_facescape(file, front=True)
    assert face.n_vertices == V - 6
    assert torch.equal(face.triangles, small_faces.triangles()[10:] - 6)
    assert_close(face.mean_vertices(), head.mean_vertices()[6:])
    assert face.tables["vertices_of_head"].tolist() == list(range(6, V))
    assert (face.uv, face.topology_name) == (None, f"facescape_{V}_front")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: {k: v for k, v in a.items() if k != "id_var"},
            "id_var: expected an array of this",
        ),
        (lambda a: a | {"shape_bm_core": a["shape_bm_core"][1:]}, "three rows for each vertex"),
        (lambda a: a | {"shape_bm_core": a["shape_bm_core"][..., :2]}, "id_mean: expected 2 values as shape_bm_core"),
        (
            lambda a: a | {"shape_bm_core": np.array([[["x"]]], dtype=object)},
            "core: expected an array of this",
        ),
        (lambda a: a | {"id_var": a["id_var"][:2]}, "id_var: expected 3 values as id_mean has; got 2"),
        (lambda a: a | {"id_var": -a["id_var"]}, "id_var: expected positive"),
        (lambda a: a | {"id_mean": a["id_mean"] * np.nan}, "id_mean: expected finite"),
        (lambda a: a | {"fv_indices": a["fv_indices"] + 1}, "fv_indices: expected indices of 42 entries"),
        (lambda a: a | {"fv_indices": a["fv_indices"][:, :2]}, "fv_indices: expected indices of 42 entries"),
        (lambda a: a | {"ft_indices": a["ft_indices"][1:]}, "ft_indices: expected shape"),
        (lambda a: a | {"shape_bm_core": a["shape_bm_core"] * 3}, "length of the mean face: expected 80 to 600 mm"),
    ],
)
def test_refuses_what_does_not_fit(tmp_path, change, message):
    np.savez(tmp_path / "a.npz", **change(content()))
    with pytest.raises(ModelFileError, match=rf"a\.npz: .*{message}|{message}"):
        read_facescape(tmp_path / "a.npz")


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    np.savez(tmp_path / "a.npz", **(content() | {"id_mean": np.array(Trap(), dtype=object)}))
    with pytest.raises(ModelFileError, match="id_mean: expected an array of this name"):
        read_facescape(tmp_path / "a.npz")
    np.save(tmp_path / "core.npy", np.array(Trap(), dtype=object))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    mesh = small_faces.write_mesh(tmp_path / "mesh.obj")
    for name in ("core.npy", "b.npy", "a.npz"):
        with pytest.raises(ModelFileError, match=f"{name}: file: expected "):
            read_facescape_v13(tmp_path / name, mesh)
    assert not (tmp_path / "trapped").exists()


def test_cut_or_changed_npz_files_are_refused(file):
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 499), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=f"{file}: .*expected .*; got "):
            read_facescape(file)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        place = archive.getinfo("shape_bm_core.npy").header_offset + 400
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ModelFileError, match=f"{file}: .*expected .*; got "):
        read_facescape(file)


@pytest.fixture
def v13(tmp_path):
    faces = small_faces.faces(6, N_EXP, rank=N_ID).reshape(6, N_EXP, 3 * V)
    mix, singular, rest = torch.linalg.svd(faces.reshape(6, -1), full_matrices=False)
    np.save(
        tmp_path / "core_6_3_4.npy",
        (singular[:N_ID, None] * rest[:N_ID]).reshape(N_ID, N_EXP, 3 * V).numpy(),
    )
    np.save(tmp_path / "factors_id_6_3_4.npy", mix[:, :N_ID].numpy())
    return (
        tmp_path / "core_6_3_4.npy",
        small_faces.write_mesh(tmp_path / "mesh.obj"),
        faces.reshape(6, N_EXP, V, 3),
    )


def test_v13_gives_the_faces_back(v13):
    file, mesh, faces = v13
    model = read_facescape_v13(file, mesh)
    assert_close(small_faces.bilinear_shapes(model), faces, rtol=0, atol=1e-3)
    assert (model.summary["people"], model.topology_name) == (6, f"facescape_{V}_v10")
    assert torch.equal(model.triangles, small_faces.triangles())
    rows = file.with_name("factors_id_6_3_4.npy").rename(file.with_name("rows.npy"))
    with pytest.raises(ModelFileError, match=r"factors_id_6_3_4\.npy: file: expected an existing file; got nothing"):
        read_facescape_v13(file, mesh)
    assert torch.equal(read_facescape_v13(file, mesh, factors_id=rows).factors["core"], model.factors["core"])


def test_v13_refuses_damage(v13):
    file, mesh, _ = v13
    whole = file.read_bytes()
    for content in [*(whole[:n] for n in [*range(140), 500, len(whole) - 1]), whole + b"\0"]:
        file.write_bytes(content)
        with pytest.raises(ModelFileError, match=f"{file}: .*expected .*; got "):
            read_facescape_v13(file, mesh)
    for place in range(128):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 5]) + whole[place + 1 :])
        refused_or_read(file, mesh)
    np.save(file, np.ones((N_ID, N_EXP, 3 * V - 3)))
    with pytest.raises(ModelFileError, match=r"core: expected \[I, E, 126\]"):
        read_facescape_v13(file, mesh)
    np.save(file, np.ones((N_ID + 1, N_EXP, 3 * V)))
    with pytest.raises(ModelFileError, match="factors_id: expected 4 columns as the core has"):
        read_facescape_v13(file, mesh)


def refused_or_read(file, mesh):
    try:
        model = read_facescape_v13(file, mesh)
    except ModelFileError:
        return
    assert bool(torch.isfinite(model.factors["core"]).all())
