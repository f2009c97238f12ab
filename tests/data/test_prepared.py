"""Prepared sets: what is written is read back, in an order that the shards do not change; damage is named."""

import errno
import json
import stat

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from facerecon_torch.data.prepared import load_prepared, save_prepared
from facerecon_torch.errors import DataFileError
from facerecon_torch.formats import checked_columns
from facerecon_torch.runtime.sharded_job import Shard

SPEC = {"data": "bosphorus", "batch": 2}


def make_shard(names, seed=0, failures=None):
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
    entries = [
        {"name": name, "subject": name[:2], "kind": "N", "code": "code", "image": f"{name}.jpg", "flags": flags}
        for name, flags in zip(names, ([] if k % 2 == 0 else ["no_face"] for k in range(len(names))))
    ]
    columns = tables | {"measure.scan_to_mesh": draw()} if names else {}
    return Shard(columns, {"samples": entries, "failures": failures or {}})


def write_set(folder, shards):
    shards = [Shard(dict(shard.columns), shard.document) for shard in shards]  # joining empties them
    save_prepared(folder, shards, model_sha256="ab" * 32, spec=SPEC)
    return load_prepared(folder)


def test_a_set_is_sorted_by_name_and_keeps_rows_together(tmp_path):
    shards = [make_shard(["d1", "a1"], 1), make_shard([], failures={"e1": "empty"}), make_shard(["c1", "b1"], 2)]
    made = write_set(tmp_path, shards)
    assert made.names == ("a1", "b1", "c1", "d1")
    assert made.meshes[0].equal(shards[0].columns["meshes"][1])
    assert made.meshes[1].equal(shards[2].columns["meshes"][1])
    assert made.parameters.identity[3].equal(shards[0].columns["identity"][0])
    assert made.measures["scan_to_mesh"][2].equal(shards[2].columns["measure.scan_to_mesh"][0])
    assert made.flags == (("no_face",), ("no_face",), (), ())
    assert made.has_landmarks.tolist() == [True, True, False, False]
    assert made.failures == {"e1": "empty"}
    assert made.images[1] == tmp_path / "crops" / "b1.jpg"
    assert made.spec == SPEC
    assert made.model_sha256 == "ab" * 32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.json", "tables.safetensors"]


def test_the_bytes_do_not_depend_on_the_shards(tmp_path):
    rows = {name: make_shard([name], seed) for seed, name in enumerate(["a1", "b1", "c1"])}
    for folder, order in (("one", "a1 b1 c1"), ("two", "c1 a1 b1")):
        write_set(tmp_path / folder, [rows[name] for name in order.split()])
    for name in ("set.json", "tables.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_whoever_may_read_the_set_may_read_its_tables(tmp_path):
    write_set(tmp_path, [make_shard(["a1"])])
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("set.json", "tables.safetensors")}
    assert len(modes) == 1


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="every recording must be there once; got a1 again"):
        write_set(tmp_path, [make_shard(["a1"]), make_shard(["a1"])])


def test_a_set_without_any_sample_says_why(tmp_path):
    with pytest.raises(DataFileError, match="all 2 recordings failed, a1: no picture"):
        write_set(tmp_path, [make_shard([], failures={"b1": "empty", "a1": "no picture"})])


def test_shards_with_other_measures_are_refused(tmp_path):
    other = make_shard(["b1"])
    other.columns["measure.more"] = torch.zeros(1)
    with pytest.raises(ValueError, match="the same columns"):
        write_set(tmp_path, [make_shard(["a1"]), other])


def test_columns_that_do_not_fit_the_entries_are_refused(tmp_path):
    shard = make_shard(["a", "b"])
    shard.document["samples"].pop()
    with pytest.raises(DataFileError, match=r"every column must have 1 rows, one per entry; got \{.*'covered': 2"):
        write_set(tmp_path, [shard])
    shard = make_shard(["a"])
    del shard.columns["landmarks"]
    with pytest.raises(DataFileError, match="covered, landmarks; landmarks are missing"):
        write_set(tmp_path, [shard])
    assert not list(tmp_path.iterdir())


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
        (lambda f: _edit(f / "set.json", lambda c: c.update(version=9)), r"of version 2; got .*9"),
        (lambda f: _edit(f / "set.json", lambda c: c.pop("spec")), r"spec: expected a dict"),
        (lambda f: _edit(f / "set.json", lambda c: c["samples"].pop()), r"expected columns of 1 rows"),
        (lambda f: _cut(f / "tables.safetensors"), r"tables\.safetensors: expected a complete safetensors file"),
        (lambda f: _flip(f / "tables.safetensors"), r"tables\.safetensors: expected content with the SHA-256"),
        (lambda f: (f / "tables.safetensors").unlink(), r"tables\.safetensors: expected a safetensors"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write_set(tmp_path, [make_shard(["a1", "b1"])])
    damage(tmp_path)
    with pytest.raises(DataFileError, match=message):
        load_prepared(tmp_path)


def test_a_set_in_the_making_is_told_from_none(tmp_path):
    (tmp_path / "shards").mkdir()
    with pytest.raises(DataFileError, match="shards of a set that is not complete: run prepare again"):
        load_prepared(tmp_path)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_a_set_of_version_1_has_no_checksum(tmp_path):
    before = write_set(tmp_path, [make_shard(["a1", "b1"])])
    _edit(tmp_path / "set.json", lambda document: document.update(version=1))
    save_file(load_file(tmp_path / "tables.safetensors"), tmp_path / "tables.safetensors")
    assert torch.equal(load_prepared(tmp_path).meshes, before.meshes)
    _edit(tmp_path / "set.json", lambda document: document.update(version=2))
    with pytest.raises(DataFileError, match="got none"):
        load_prepared(tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checked_columns, "save_file", full)
        with pytest.raises(OSError, match="No space left") as caught:
            write_set(tmp_path, [make_shard(["a1"])])
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
    assert len(write_set(tmp_path, [make_shard(["a1"])])) == 1
