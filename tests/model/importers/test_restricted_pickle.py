"""A pickle is read, never run."""

import os
import pickle
import pickletools
import sys

import numpy as np
import pytest
import scipy.sparse

from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.importers.flame import read_flame
from facerecon_torch.model.importers.restricted_pickle import (
    plain_array,
    read_pickled_array,
    read_restricted_pickle,
)


class Running:
    """Its pickle calls a function when it is read."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pkl"


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_by_name_and_not_run(path, protocol):
    trace = path.with_name("trace")
    path.write_bytes(pickle.dumps({"f": Running(os.mkdir, str(trace))}, protocol=protocol))
    pickle.loads(path.read_bytes())
    assert trace.is_dir()  # a plain reader runs it
    trace.rmdir()
    for read in (read_restricted_pickle, read_flame):
        with pytest.raises(
            ModelFileError, match=r"model.pkl: pickle: expected only arrays; got (posix|nt)\.mkdir: refused"
        ):
            read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "running",
    [
        Running(eval, "1"),
        Running(getattr, "text", "upper"),
        Running(np.load, "elsewhere.npy"),
        Running(pickle.loads, b"N."),
        Running(np.dtype, "f8"),
    ],
    ids=["eval", "getattr", "np.load", "pickle.loads", "dtype"],
)
def test_only_stand_ins_are_called(path, running):
    path.write_bytes(pickle.dumps({"f": running}))
    if running.call is np.dtype:
        held = read_restricted_pickle(path)["f"]
        assert not isinstance(held, np.dtype)
        with pytest.raises(ModelFileError, match="f: expected an array"):
            plain_array(path, "f", held)
    else:
        with pytest.raises(ModelFileError, match=rf"{running.call.__name__}: refused, not run"):
            read_restricted_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", "f8", "u4", "i8", ">f4", "?"])
def test_arrays_of_every_protocol_come_back(path, protocol, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    document = {"rows": array, "columns": np.asfortranarray(array), "few": array[:, 1:2], "text": "as it is"}
    path.write_bytes(pickle.dumps(document, protocol=protocol))
    loaded = read_restricted_pickle(path)
    assert loaded["text"] == "as it is"
    for name in ("rows", "columns", "few"):
        got = plain_array(path, name, loaded[name])
        assert got.dtype == document[name].dtype
        assert np.array_equal(got, document[name])


@pytest.mark.parametrize("protocol", range(6))
def test_only_the_set_of_the_language_is_passed_over(path, protocol):
    path.write_bytes(pickle.dumps({"s": {"x"}, "f": np.ones(2)}, protocol=protocol))
    loaded = read_restricted_pickle(path)
    assert np.array_equal(plain_array(path, "f", loaded["f"]), np.ones(2))
    with pytest.raises(ModelFileError, match="s: expected an array"):
        plain_array(path, "s", loaded["s"])
    path.write_bytes(b"\x80\x02csets\nset\n]\x85R.")
    with pytest.raises(ModelFileError, match=r"sets\.set: refused, not run"):
        read_restricted_pickle(path)


def test_classes_of_chumpy_are_stand_ins_and_the_package_is_not_imported(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "chumpy", None)  # an import would fail
    monkeypatch.setitem(sys.modules, "chumpy.reordering", None)
    path.write_bytes(b"\x80\x02}U\x01a" + b"cchumpy.reordering\ntranspose\n)\x81}U\x01bK\x01sb" + b"s.")
    held = read_restricted_pickle(path)["a"]
    assert held.state == {"b": 1}
    with pytest.raises(ModelFileError, match="a: expected an array"):
        plain_array(path, "a", held)
    path.write_bytes(b"\x80\x02cchumpyx\nCh\n.")
    with pytest.raises(ModelFileError, match=r"chumpyx\.Ch: refused"):
        read_restricted_pickle(path)


def test_a_pickle_of_one_array_is_read(path):
    for protocol in range(6):
        path.write_bytes(pickle.dumps(np.arange(6).reshape(2, 3), protocol=protocol))
        assert np.array_equal(read_pickled_array(path), np.arange(6).reshape(2, 3))
    path.write_bytes(pickle.dumps({"f": np.ones(2)}))
    with pytest.raises(ModelFileError, match="pickle: expected an array; got dict"):
        read_pickled_array(path)


def test_sparse_matrices_are_passed_over(path):
    path.write_bytes(pickle.dumps({"J": scipy.sparse.csr_matrix(np.eye(3)), "f": np.ones(2)}))
    loaded = read_restricted_pickle(path)
    assert np.array_equal(plain_array(path, "f", loaded["f"]), np.ones(2))
    with pytest.raises(ModelFileError, match="J: expected an array"):
        plain_array(path, "J", loaded["J"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array(["text"]), "f: expected numbers of a type"),
        (np.array([None, 1]), "f: expected numbers of a type"),
        (np.ones(2, dtype=complex), "f: expected numbers of a type"),
        ([1.0, 2.0], "f: expected an array; got list"),
    ],
)
def test_other_values_are_no_arrays(path, value, message):
    path.write_bytes(pickle.dumps({"f": value}, protocol=2))
    with pytest.raises(ModelFileError, match=message):
        plain_array(path, "f", read_restricted_pickle(path)["f"])


def test_a_pickle_of_something_else_is_refused(path):
    for value, came in (([1], "list"), ({1: 2}, "dict")):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(ModelFileError, match=f"pickle: expected a dict with text keys; got {came}"):
            read_restricted_pickle(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="size"):
        read_restricted_pickle(path)


def test_a_place_far_away_in_the_memory_is_refused_before_room_is_made_for_it(path):
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")  # an empty dict, put at place 2**31 - 1
    assert [code.name for code, _, _ in pickletools.genops(path.read_bytes())][2] == "LONG_BINPUT"
    with pytest.raises(ModelFileError, match="more than 20000 steps or places"):
        read_restricted_pickle(path)


def test_deep_nesting_is_refused(path):
    path.write_bytes(b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.")
    with pytest.raises(ModelFileError, match="more than 20000 steps or places"):
        read_restricted_pickle(path)
