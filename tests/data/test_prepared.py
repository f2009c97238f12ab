"""Prepared sets: what is written is read back, in an order that the parts do not change; damage is named."""

import errno
import json
import stat

import pytest
import torch

from facerecon_torch.data import prepared as module
from facerecon_torch.data.prepared import PreparedRows, assemble, load_prepared, read_part, write_part
from facerecon_torch.errors import DataFileError

SPEC = {"data": "bosphorus", "batch": 2}


def make_rows(names, seed=0, failures=None):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(len(names), *shape, generator=generator)

    tables = {
        "identity": draw(5),
        "expression": draw(3),
        "rotation": draw(3, 3),
        "translation": draw(3),
        "meshes": draw(7, 3),
        "covered": draw(7) > 0,
        "landmarks": draw(66, 2),
    }
    if names:
        tables["landmarks"][0] = torch.nan
    return PreparedRows(
        tuple(names),
        tuple(name[:2] for name in names),
        tuple("N" for _ in names),
        tuple("code" for _ in names),
        tuple(f"{name}.jpg" for name in names),
        tables if names else {},
        {"scan_to_mesh": draw()} if names else {},
        tuple(("no_face",) if k % 2 else () for k in range(len(names))),
        failures or {},
    )


def write_set(folder, parts):
    for number, rows in enumerate(parts):
        write_part(folder, number, rows)
    return assemble(folder, range(len(parts)), model_sha256="ab" * 32, spec=SPEC)


def test_a_part_is_read_back_identically(tmp_path):
    rows = make_rows(["b1", "a1"], failures={"c1": "no picture"})
    write_part(tmp_path, 3, rows)
    again = read_part(tmp_path, 3)
    for name in ("names", "subjects", "kinds", "codes", "images", "flags", "failures"):
        assert getattr(again, name) == getattr(rows, name)
    for name, values in rows.tables.items():
        torch.testing.assert_close(again.tables[name], values, rtol=0, atol=0, equal_nan=True)
    assert again.measures["scan_to_mesh"].equal(rows.measures["scan_to_mesh"])


def test_a_set_is_sorted_by_name_and_keeps_rows_together(tmp_path):
    parts = [make_rows(["d1", "a1"], 1), make_rows([], failures={"e1": "empty"}), make_rows(["c1", "b1"], 2)]
    made = write_set(tmp_path, parts)
    assert made.names == ("a1", "b1", "c1", "d1")
    assert made.meshes[0].equal(parts[0].tables["meshes"][1])
    assert made.meshes[1].equal(parts[2].tables["meshes"][1])
    assert made.parameters.identity[3].equal(parts[0].tables["identity"][0])
    assert made.measures["scan_to_mesh"][2].equal(parts[2].measures["scan_to_mesh"][0])
    assert made.flags == (("no_face",), ("no_face",), (), ())
    assert made.has_landmarks.tolist() == [True, True, False, False]
    assert made.failures == {"e1": "empty"}
    assert made.images[1] == tmp_path / "crops" / "b1.jpg"
    assert made.spec == SPEC
    assert made.model_sha256 == "ab" * 32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.json", "tables.safetensors"]


def test_the_bytes_do_not_depend_on_the_parts(tmp_path):
    rows = {name: make_rows([name], seed) for seed, name in enumerate(["a1", "b1", "c1"])}
    for folder, order in (("one", "a1 b1 c1"), ("two", "c1 a1 b1")):
        write_set(tmp_path / folder, [rows[name] for name in order.split()])
    for name in ("set.json", "tables.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_whoever_may_read_the_set_may_read_its_tables(tmp_path):
    write_set(tmp_path, [make_rows(["a1"])])
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("set.json", "tables.safetensors")}
    assert len(modes) == 1


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="every recording must be there once; got a1 again"):
        write_set(tmp_path, [make_rows(["a1"]), make_rows(["a1"])])


def test_a_set_without_any_sample_says_why(tmp_path):
    with pytest.raises(DataFileError, match="all 2 recordings failed, a1: no picture"):
        write_set(tmp_path, [make_rows([], failures={"b1": "empty", "a1": "no picture"})])


def test_parts_with_other_measures_are_refused(tmp_path):
    other = make_rows(["b1"])
    other.measures["more"] = torch.zeros(1)
    with pytest.raises(DataFileError, match="the same measures"):
        write_set(tmp_path, [make_rows(["a1"]), other])


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"every column must have 1 rows, one a name; got \{'flags': 2\}"):
        PreparedRows(("a",), ("a",), ("N",), ("N",), ("a.jpg",), make_rows(["a"]).tables, {}, ((), ()), {})
    tables = {name: values for name, values in make_rows(["a"]).tables.items() if name != "landmarks"}
    with pytest.raises(ValueError, match="covered, landmarks; landmarks are missing"):
        PreparedRows(("a",), ("a",), ("N",), ("N",), ("a.jpg",), tables, {}, ((),), {})


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "set.json").unlink(), r"set\.json: expected the set\.json of a prepared set; got none"),
        (lambda f: (f / "set.json").write_text("{"), r"set\.json: expected a JSON document"),
        (lambda f: _edit(f / "set.json", lambda c: c.update(version=9)), r"of version 1; got .*9"),
        (lambda f: _edit(f / "set.json", lambda c: c.pop("spec")), r"expected the keys"),
        (lambda f: _edit(f / "set.json", lambda c: c["samples"].pop()), r"expected columns of 1 rows"),
        (lambda f: _cut(f / "tables.safetensors"), r"tables\.safetensors: expected a complete safetensors file"),
        (lambda f: (f / "tables.safetensors").unlink(), r"tables\.safetensors: expected a file of a prepared set"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write_set(tmp_path, [make_rows(["a1", "b1"])])
    damage(tmp_path)
    with pytest.raises(DataFileError, match=message):
        load_prepared(tmp_path)


def test_a_set_in_the_making_is_told_from_none(tmp_path):
    write_part(tmp_path, 0, make_rows(["a1"]))
    with pytest.raises(DataFileError, match="parts of a set that is not complete: run prepare again"):
        load_prepared(tmp_path)


def test_a_full_disk_leaves_the_parts_and_nothing_half_written(tmp_path, monkeypatch):
    write_part(tmp_path, 0, make_rows(["a1"]))
    before = sorted(tmp_path.rglob("*"))

    def full(tensors, path):
        with open(path, "wb") as stream:
            stream.write(b"half")
        raise module.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(OSError, match="No space left") as caught:
            assemble(tmp_path, [0], model_sha256="0", spec=SPEC)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(tmp_path.rglob("*")) == before
    assert len(assemble(tmp_path, [0], model_sha256="0", spec=SPEC)) == 1
