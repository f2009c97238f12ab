"""Folders of other systems: names, formats, and files that are missing, extra, damaged or of unknown topology."""

import numpy as np
import pytest
import scipy.io
import torch

from facerecon_torch.errors import DataFileError
from facerecon_torch.export import save_obj, save_ply
from facerecon_torch.external.folder import OutputHints, read_system
from facerecon_torch.external.mesh_file import OutputPoints, read_output
from facerecon_torch.external.topologies import find_topology
from facerecon_torch.metrics.scan import SEVEN_POINTS
from facerecon_torch.structures import Mesh
from tests.tiny_model import tiny_bilinear

SEVEN = np.array([[-45.0, 30, 0], [-18, 30, 0], [18, 30, 0], [45, 30, 0], [0, -12, 20], [-25, -40, 5], [25, -40, 5]])
NAMES = ("anna", "ben_1", "carl", "dora", "eve")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    model = tiny_bilinear()
    return Mesh(vertices=model(model.identity_mean, model.expression_mean), triangles=model.topology.triangles)


def _arrays(mesh):
    return mesh.vertices.numpy().astype(np.float32), mesh.triangles.numpy().astype(np.int32)


def test_every_systems_files_are_found_and_read(mesh, tmp_path):
    vertices, triangles = _arrays(mesh)
    save_obj(mesh, tmp_path / "anna_obj.obj")  # 3DDFA_V2
    scipy.io.savemat(tmp_path / "ben_1_0.mat", {"vertex": vertices.T, "triangles": triangles.T + 1})  # 3DDFA
    (tmp_path / "carl").mkdir()
    save_ply(mesh, tmp_path / "carl" / "mesh.ply")  # MICA
    np.save(tmp_path / "carl" / "kpt7.npy", SEVEN)
    np.save(tmp_path / "carl" / "identity.npy", np.zeros(300))
    (tmp_path / "dora").mkdir()
    save_obj(mesh, tmp_path / "dora" / "dora.obj")  # DECA
    save_obj(mesh, tmp_path / "dora" / "dora_detail.obj")
    np.savetxt(tmp_path / "dora" / "dora_kpt2d.txt", np.zeros((68, 3)))
    (tmp_path / "eve00").mkdir()
    save_obj(mesh, tmp_path / "eve00" / "mesh_coarse.obj")  # EMOCA
    own = len(vertices), tuple(range(7))
    system = read_system(tmp_path, NAMES, OutputHints(own=own))
    assert (sorted(system.faces), system.missing, system.extra, system.unreadable) == ([0, 1, 2, 3, 4], (), (), ())
    for face in system.faces.values():
        assert torch.allclose(face.vertices.float(), mesh.vertices, atol=1e-3)
        assert torch.equal(face.triangles, mesh.triangles)
        assert face.topology == "model"
        assert face.image_points is None
        assert torch.equal(face.seven, face.vertices[:7])  # of the mesh itself, also where MICA wrote points


def test_points_beside_a_mesh_of_unknown_topology_are_its_seven(mesh, tmp_path):
    (tmp_path / "carl").mkdir()
    save_ply(mesh, tmp_path / "carl" / "mesh.ply")
    np.save(tmp_path / "carl" / "kpt7.npy", SEVEN)
    assert np.array_equal(read_system(tmp_path, NAMES).faces[2].seven.numpy(), SEVEN)


def test_3ddfas_files_as_its_code_writes_them(mesh, tmp_path):
    """OBJ files with x and y exchanged and colours behind them, PLY headers indented, points in px of the picture."""
    vertices, triangles = _arrays(mesh)
    rows = [f"v {y:.4f} {x:.4f} {z:.4f} 10 20 30" for x, y, z in vertices]
    (tmp_path / "anna_0.obj").write_text("\n".join([*rows, *("f {} {} {}".format(*t) for t in triangles + 1), ""]))
    np.savetxt(tmp_path / "anna_0.txt", np.arange(204.0).reshape(3, 68), fmt="%.3f")
    header = ["format ascii 1.0", f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    header += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header"]
    body = [*("{} {} {}".format(*v) for v in vertices.tolist()), *("3 {} {} {}".format(*t) for t in triangles)]
    indented = "\n".join(["ply", *("    " + line for line in header), *body, ""])
    (tmp_path / "ben_1_0.ply").write_text(indented)
    (tmp_path / "carl_0.ply").write_text(indented[: len(indented) // 2])
    scipy.io.savemat(tmp_path / "carl_0.mat", {"vertex": vertices.T, "triangles": triangles.T + 1})
    system = read_system(tmp_path, NAMES, OutputHints(own=(len(vertices), tuple(range(7)))))
    assert (sorted(system.faces), system.unreadable) == ([0, 1, 2], ())
    assert torch.allclose(system.faces[0].vertices[:, [1, 0, 2]].float(), mesh.vertices, atol=1e-3)
    assert torch.equal(system.faces[0].seven, system.faces[0].vertices[:7])
    assert system.faces[0].image_points[5].tolist() == [5.0, 73.0]
    for k in (1, 2):
        assert torch.allclose(system.faces[k].vertices.float(), mesh.vertices, atol=1e-3)


def test_what_gives_no_face_is_listed_and_the_rest_goes_on(mesh, tmp_path):
    vertices, triangles = _arrays(mesh)
    np.savez(tmp_path / "anna.npz", vertices=vertices, faces=triangles)
    (tmp_path / "ben_1.obj").write_text("v 1 2 x\nf 1 1 1\n")
    scipy.io.savemat(tmp_path / "carl_0.mat", {"vertex": vertices.T})
    save_obj(mesh, tmp_path / "zoe.obj")
    (tmp_path / "anna.jpg").write_bytes(b"not looked at")
    system = read_system(tmp_path, NAMES, OutputHints(own=(len(vertices), tuple(range(7)))))
    assert list(system.faces) == [0]
    assert system.missing == ("dora", "eve")
    assert system.extra == ("zoe.obj",)
    reasons = dict(system.unreadable)
    assert "plain decimal numbers" in reasons["ben_1.obj"]
    assert "triangles=FILE" in reasons["carl_0.mat"]
    report = system.report()
    assert (report["faces"], report["topologies"], len(report["unreadable"])) == (1, ["model"], 2)


def test_unknown_topology_needs_landmarks(mesh, tmp_path):
    save_obj(mesh, tmp_path / "anna.obj")
    count = len(mesh.vertices)
    (failure,) = read_system(tmp_path, NAMES).unreadable
    assert f"got {count} vertices, a number that no known topology has" in failure[1]
    numbers = tmp_path / "numbers.lst"
    numbers.write_text(" ".join(map(str, range(7, 14))))
    face = read_system(tmp_path, NAMES, OutputHints(landmark_vertices=numbers)).faces[0]
    assert torch.equal(face.seven, face.vertices[7:14])
    assert face.topology == ""
    numbers.write_text(" ".join([str(count)] * 7))
    (failure,) = read_system(tmp_path, NAMES, OutputHints(landmark_vertices=numbers)).unreadable
    assert f"more than {count} vertices" in failure[1]
    np.savetxt(tmp_path / "anna_landmarks.txt", np.arange(204.0).reshape(68, 3))
    face = read_system(tmp_path, NAMES).faces[0]
    assert face.seven[:, 0].tolist() == [3.0 * point for point in SEVEN_POINTS]


def test_3ddfas_vertices_get_the_triangles_of_their_own_file(mesh, tmp_path):
    vertices, triangles = _arrays(mesh)
    scipy.io.savemat(tmp_path / "anna_0.mat", {"vertex": vertices.T})
    np.savetxt(tmp_path / "anna_0.txt", np.arange(204.0).reshape(3, 68))
    scipy.io.savemat(tmp_path / "tri.matlab.mat", {"tri": triangles.T + 1})
    hints = OutputHints(triangles=tmp_path / "tri.matlab.mat", own=(len(vertices), tuple(range(7))))
    system = read_system(tmp_path, NAMES, hints)
    assert torch.equal(system.faces[0].triangles, mesh.triangles)
    assert system.faces[0].image_points[5].tolist() == [5.0, 73.0]
    assert system.extra == ("tri.matlab.mat",)


def test_landmarks_alone_are_a_result(tmp_path):
    np.save(tmp_path / "anna.npy", np.arange(136.0).reshape(68, 2))
    face = read_system(tmp_path, NAMES).faces[0]
    assert face.vertices is None
    assert face.image_points[1].tolist() == [2.0, 3.0]


def test_a_folder_without_one_fitting_name_is_refused(mesh, tmp_path):
    save_obj(mesh, tmp_path / "zoe.obj")
    with pytest.raises(ValueError, match="belongs to one of the 5 images"):
        read_system(tmp_path, NAMES)
    with pytest.raises(ValueError, match="must be a folder"):
        read_system(tmp_path / "none", NAMES)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.txt", lambda f: f.write_text("1 2\n3\n"), "rows of equally many numbers"),
        ("a.txt", lambda f: f.write_text("1 nan\n" * 68), "numbers in"),
        ("a.txt", lambda f: f.write_text("1 2\n" * 5), "7 or 68 points"),
        ("a.npy", lambda f: np.save(f, np.zeros((5, 4))), r"\[n, 3\] or \[3, n\]"),
        ("a.npy", lambda f: f.write_bytes(b"\x93NUMPY"), "npy file"),
        ("a.npz", lambda f: np.savez(f, other=np.zeros(3)), "vertices or vertex or verts"),
        ("a.npz", lambda f: np.savez(f, verts=np.zeros((4, 3)), tri=np.full((2, 3), 9)), "vertex numbers below 4"),
        ("a.mat", lambda f: f.write_bytes(b"MATLAB"), "bytes"),
        ("a.stl", lambda f: f.write_bytes(b""), "a name that ends in one of"),
    ],
)
def test_damaged_files_say_what_is_wrong(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(DataFileError, match=message):
        read_output(tmp_path / name)


def test_points_and_point_clouds(tmp_path):
    np.save(tmp_path / "kpt68.npy", np.zeros((1, 68, 3)))
    assert isinstance(read_output(tmp_path / "kpt68.npy"), OutputPoints)
    lines = ["ply", "format ascii 1.0", "element vertex 2", *(f"property float {axis}" for axis in "xyz"), "end_header"]
    (tmp_path / "cloud.ply").write_text("\n".join([*lines, "0 0 1", "0 0 2", ""]))
    assert read_output(tmp_path / "cloud.ply").triangles is None


def test_published_topologies_are_known_by_their_size():
    assert find_topology(5023)[0] == "flame_5023"
    assert len(find_topology(38365)[1]) == 7
    assert find_topology(77) is None
