"""NPZ: numbers and text come back, objects are left out unread, and headers that lie are refused."""

import io
import os
import zipfile

import numpy as np
import pytest

from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.npz_file import read_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    arrays = {
        "rows": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "one": np.array(3),
    }
    save(tmp_path / "a.npz", **arrays, names=np.array(["smile", "frown"]), empty=np.zeros((0, 3), ">f4"))
    read = read_npz(tmp_path / "a.npz")
    assert sorted(read) == ["columns", "empty", "names", "one", "rows"]
    assert all(np.array_equal(read[name], array) and read[name].dtype == array.dtype for name, array in arrays.items())
    assert read["names"].tolist() == ["smile", "frown"]
    assert read["empty"].shape == (0, 3)


class Running:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", objects=np.array([Running(str(tmp_path / "trace"))], dtype=object), plain=np.ones(2))
    assert list(read_npz(tmp_path / "a.npz")) == ["plain"]
    assert not (tmp_path / "trace").exists()


def _npz(tmp_path, content, name="a.npy"):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(name, content)
    return tmp_path / "a.npz"


def _npy(shape, body):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_npy((10**15,), b"\0" * 16), "a.npy: expected 8000000000000000 bytes .float64 of shape"),
        (_npy((3,), b"\0" * 16), "a.npy: expected 24 bytes"),
        (_npy((-1, -2), b"\0" * 16), "a.npy: expected 16 bytes"),
        (b"no array", "a.npy: expected a header of an npy file"),
        (_npy((2,), b"\0" * 16)[:40], "a.npy: expected a header of an npy file"),
        (b"", "a.npy: expected a header of an npy file"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, content, message):
    with pytest.raises(DataFileError, match=message):
        read_npz(_npz(tmp_path, content))


def test_other_members_and_too_large_ones_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"members: expected names that end in .npy; got 'a.txt'"):
        read_npz(_npz(tmp_path, b"text", "a.txt"))
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(100_000))
    with pytest.raises(DataFileError, match="size: expected at most 50000 bytes unpacked; got more"):
        read_npz(tmp_path / "a.npz", limit=50_000)
