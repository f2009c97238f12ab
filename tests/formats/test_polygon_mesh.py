"""OBJ and PLY of polygons: what trimesh writes is read, every form of corner, and every wrong line named."""

import struct

import numpy as np
import pytest
import torch
import trimesh

from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh

BOX = trimesh.creation.box(extents=(2, 3, 4))
HEADER = (
    "ply\nformat ascii 1.0\nelement vertex 3\n{xyz}element face 1\nproperty list uchar int vertex_indices\nend_header\n"
)
XYZ = "property float x\nproperty float y\nproperty float z\n"


@pytest.mark.parametrize("form", ["obj", "ascii", "binary"])
def test_meshes_of_another_writer_come_back(tmp_path, form):
    path = tmp_path / ("box.obj" if form == "obj" else "box.ply")
    BOX.export(path, **({} if form == "obj" else {"encoding": form}))
    mesh = read_polygon_mesh(path)
    assert np.array_equal(mesh.vertices.numpy(), BOX.vertices)
    assert np.array_equal(mesh.triangles.numpy(), BOX.faces)
    assert mesh.uv is None
    assert mesh.n_polygons == 12


def write(tmp_path, text, name="mesh.obj"):
    (tmp_path / name).write_text(text, encoding="ascii")
    return tmp_path / name


SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv .5 2 0\nvt 0 0\nvt 1 0.5\n"


@pytest.mark.parametrize("corner", ["{0}", "{0}/1", "{0}//1", "{0}/1/0", "{0}/0/0"])
def test_polygons_become_fans_in_every_form_of_corner(tmp_path, corner):
    polygons = [(1, 2, 3, 5, 4), (1, 2, 3)]
    text = SQUARE + "".join("f " + " ".join(corner.format(k) for k in p) + "\n" for p in polygons)
    mesh = read_polygon_mesh(write(tmp_path, "# a comment\n\no name\n" + text))
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 4], [0, 4, 3], [0, 1, 2]]
    assert mesh.n_polygons == 2
    assert (mesh.uv is None) == (corner not in ("{0}/1", "{0}/1/0"))


def test_the_first_corner_decides_about_texture_coordinates_and_seams_are_counted(tmp_path):
    mesh = read_polygon_mesh(write(tmp_path, SQUARE + "f 1/1 2/2 3/1\nf 1/2 3/1 4/1\n"))
    assert mesh.uv.tolist() == [[0, 0], [1, 0.5], [0, 0], [0, 0], [0, 0]]
    assert mesh.n_seams == 1
    square = [[0, 0], [1, 0.5], [0, 0]]
    assert mesh.corner_uv.tolist() == [square, [[1, 0.5], [0, 0], [0, 0]]]


def test_corners_of_a_polygon_keep_their_texture_in_its_fan(tmp_path):
    lines = SQUARE + "vt 0.25 0.75\nf 1/1 2/2 3/1 4/3\nf 1/2 2/2 4/3\n"
    mesh = read_polygon_mesh(write(tmp_path, lines))
    a, b, c = [0, 0], [1, 0.5], [0.25, 0.75]
    assert mesh.triangles[:2].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.corner_uv.tolist() == [[a, b, a], [a, a, c], [b, b, c]]


def test_a_mesh_without_seams_has_no_corners(tmp_path):
    assert read_polygon_mesh(write(tmp_path, SQUARE + "f 1/1 2/2 3/1\n")).corner_uv is None


def test_positions_alone_leave_the_faces_unread(tmp_path):
    path = write(tmp_path, "v\t0 0 0 0.1 0.2 0.3\r\nv 1 0 0 1 1 1\r\nf 1 2 9\r\n")
    mesh = read_polygon_mesh(path, faces=False)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert mesh.triangles.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0\nf 1 1 1\n", "a line v: expected v and 3 numbers; got 'v 0 0'"),
        ("v 0 0 nan\nf 1 1 1\n", "lines v: expected plain decimal numbers"),
        ("v 0 0 1_0\nf 1 1 1\n", "lines v: expected plain decimal numbers"),
        ("v 0 0 1e9\nf 1 1 1\n", r"vertices: expected numbers in -1e\+06..1e\+06"),
        ("v 0 0 0\nf 1 1\n", "line 2: expected f and three or more corners"),
        ("v 0 0 0\nf 1 1 -1\n", "line 2: expected f and three or more corners"),
        ("v 0 0 0\nf 1 1 2\n", "polygons: expected indices below 1, counted from 0; got 0 to 1"),
        ("v 0 0 0\nf 0 1 1\n", "polygons: expected indices below 1, counted from 0; got -1 to 0"),
        ("v 0 0 0\nvt 0 0\nf 1/2 1/1 1/1\n", "texture indices: expected indices below 1"),
        ("v 0 0 0\nw 1\n", "line 2: expected a line of an OBJ file"),
        ("v 0 0 0\n", "mesh: expected vertices and polygons; got 1 vertices, 0 polygons"),
        ("", "size: expected 1 to"),
    ],
)
def test_wrong_lines_of_an_obj_are_named(tmp_path, text, message):
    with pytest.raises(DataFileError, match=message):
        read_polygon_mesh(write(tmp_path, text))


def test_ply_reads_either_byte_order_mixed_elements_and_texture_coordinates(tmp_path):
    header = (
        "ply\nformat binary_big_endian 1.0\ncomment made by hand\nelement vertex 3\n"
        "property float s\nproperty float t\n"
        "property double x\nproperty double y\nproperty double z\nelement face 1\nproperty uchar red\n"
        "property list uchar ushort vertex_index\nproperty list uchar float texcoord\nelement edge 1\n"
        "property int vertex1\nend_header\n"
    )
    rows = [(0.0, 0.5, 1.0, 2.0, 3.0), (0.25, 0.5, 4.0, 5.0, 6.0), (1.0, 0.5, 7.0, 8.0, 9.0)]
    body = b"".join(struct.pack(">2f3d", *row) for row in rows)
    body += struct.pack(">BB3HB2fi", 255, 3, 0, 1, 2, 2, 0.5, 0.5, 7)
    (tmp_path / "mesh.ply").write_bytes(header.encode() + body)
    mesh = read_polygon_mesh(tmp_path / "mesh.ply")
    assert mesh.vertices.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert mesh.uv.tolist() == [[0, 0.5], [0.25, 0.5], [1, 0.5]]
    assert mesh.triangles.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.format(xyz=XYZ) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "polygons: expected indices below 3"),
        (HEADER.format(xyz=XYZ) + "0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "element face: expected 3 numbers; got 2"),
        (HEADER.format(xyz=XYZ) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 2 4\n", "end of file: expected 13 numbers; got 14"),
        (
            HEADER.format(xyz=XYZ) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 0.5\n",
            "element face: expected plain numbers of the type",
        ),
        (HEADER.format(xyz=XYZ) + "0 0 0\n1 0 0\n0 1 inf\n3 0 1 2\n", "element vertex: expected plain numbers"),
        (HEADER.format(xyz=XYZ) + "0 0 0\n1 0 0\n0 1 0\n2 0 1\n", "element face: expected polygons of three or more"),
        (HEADER.format(xyz="property float x\n") + "0\n1\n0\n3 0 1 2\n", "element vertex: expected one property each"),
        (HEADER.format(xyz="property real x\n"), "header: expected format, element, property or comment"),
        (HEADER.format(xyz=XYZ).replace("format ascii 1.0\n", ""), "header: expected a line format"),
        ("ply\nformat ascii 1.0\n", "header: expected ply .. end_header"),
        ("obj\nend_header\n", "header: expected ply .. end_header"),
    ],
)
def test_what_is_wrong_in_a_ply_is_named(tmp_path, text, message):
    with pytest.raises(DataFileError, match=message):
        read_polygon_mesh(write(tmp_path, text, "mesh.ply"))


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(DataFileError, match=r"name: expected a name that ends in .obj or .ply; got 'mesh.stl'"):
        read_polygon_mesh(write(tmp_path, "solid", "mesh.stl"))
    assert torch.is_tensor(read_polygon_mesh(write(tmp_path, SQUARE + "f 1 2 3\n", "MESH.OBJ")).vertices)
