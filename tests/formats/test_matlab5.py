"""MATLAB 5: structs and cells, and that no count in them is trusted (plain arrays: the tests of 300W-LP files)."""

import struct

import numpy as np
import pytest
import scipy.io

from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.matlab5 import iter_variables


def variables(path, **options):
    return {variable.name: variable for variable in iter_variables(path, **options)}


@pytest.mark.parametrize("compressed", [False, True])
def test_structs_cells_and_arrays(tmp_path, compressed):
    cells = np.empty((2, 2), dtype=object)
    cells[:] = [[np.arange(3.0), np.zeros((0, 0))], [np.array([[True]]), {"x": 7.0}]]
    several = np.array([[(1.0, 2), (3.0, 4)]], dtype=[("a", object), ("second", object)])
    content = {
        "cells": cells,
        "one": {"x": np.eye(2), "inner": {"deep": np.int16(5)}},
        "several": several,
        "text": "ab",
    }
    scipy.io.savemat(tmp_path / "a.mat", content, do_compression=compressed)
    found = variables(tmp_path / "a.mat")
    assert list(found) == ["cells", "one", "several", "text"]
    first, third, second, fourth = found["cells"].cells  # column-major
    assert (found["cells"].shape, found["cells"].values) == ((2, 2), None)
    assert first.values.tolist() == [[0.0, 1.0, 2.0]]
    assert (third.values.tolist(), second.values.size) == ([[1]], 0)
    assert fourth.fields["x"][0].values.tolist() == [[7.0]]
    assert found["one"].fields["x"][0].values.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert found["one"].fields["inner"][0].fields["deep"][0].values.tolist() == [[5]]
    assert [[int(m.values[0, 0]) for m in members] for members in found["several"].fields.values()] == [[1, 3], [2, 4]]
    assert found["text"].values is None


def matrix(form, *parts, name=b"a", sizes=(1, 1)):
    """An uncompressed matrix element of class `form`."""

    def element(kind, payload):
        return struct.pack("<II", kind, len(payload)) + payload + bytes(-len(payload) % 8)

    head = element(6, struct.pack("<II", form, 0)) + element(5, struct.pack(f"<{len(sizes)}i", *sizes))
    content = head + element(1, name) + b"".join(element(kind, payload) for kind, payload in parts)
    return struct.pack("<II", 14, len(content)) + content


def mat_file(path, *elements):
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements))
    return path


def nested(depth):
    inner = b""
    for _ in range(depth):
        inner = matrix(1) + inner
        inner = struct.pack("<II", 14, len(inner) - 8) + inner[8:]
    return inner


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (matrix(1, sizes=(2**30, 2**30)), "expected 1152921504606846976 members of at least 8 bytes"),
        (matrix(2, (5, struct.pack("<i", 4)), (1, b"x\0\0\0"), sizes=(2**20, 1)), "expected 1048576 members"),
        (matrix(2, (5, struct.pack("<i", 0)), (1, b"x")), "expected one positive number of bytes per field"),
        (matrix(2, (5, struct.pack("<i", 3)), (1, b"x\0\0\0")), "expected one positive number of bytes per field"),
        (matrix(2, (5, struct.pack("<i", 2)), (1, b"x\0x\0")), "expected field names that differ"),
        (matrix(2, (5, struct.pack("<i", 2)), (1, b"x\0")), "expected 1 members of at least 8 bytes"),
        (matrix(1, (9, bytes(8))), "expected a matrix \\(element type 14\\); got type 9"),
        (nested(12), "expected at most 8 arrays inside each other"),
    ],
    ids=["cells", "structs", "no width", "cut names", "same names", "no members", "no matrix", "depth"],
)
def test_counts_that_do_not_agree_are_refused(tmp_path, content, message):
    file = mat_file(tmp_path / "a.mat", content)
    with pytest.raises(DataFileError, match=message):
        variables(file)


def test_larger_files_are_read_when_asked_for(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"a": np.zeros((1, 3_000_000))}, do_compression=True)
    with pytest.raises(DataFileError, match="compressed variable: expected a whole stream of up to 16777216 bytes"):
        variables(tmp_path / "a.mat")
    assert variables(tmp_path / "a.mat", limit=1 << 26)["a"].shape == (1, 3_000_000)
