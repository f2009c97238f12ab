"""A resumable job: the same bytes whoever makes the shards, one process at a time, and errors that say what to do."""

import json
import logging
import os
import threading
import time
from functools import partial

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save

from facerecon_torch.errors import DataFileError, FaceReconError
from facerecon_torch.files import write_bytes, write_json
from facerecon_torch.runtime import sharded_job
from facerecon_torch.runtime.sharded_job import Shard, ShardedJob, join_columns

SHARDS = {f"s{k}": k + 1 for k in range(4)}


def make(shard):
    """Sums in float32, whose last bits depend on the number of threads."""
    values = torch.rand(200_000, generator=torch.Generator().manual_seed(int(shard[1:])))
    rows = int(shard[1:]) + 1
    return Shard({"sums": values.sum().expand(rows), "rows": torch.arange(rows)}, {"threads": torch.get_num_threads()})


def read(shard):
    return make(shard).columns, 1


def die(shard):
    os._exit(9)


def complete(folder, shards):
    assert [shard.document for shard in shards] == [{"threads": 1}] * len(shards)
    write_bytes(folder / "rows.safetensors", save(join_columns(shards)))
    write_json(folder / "header.json", {"spec": {"seed": 0}})


def wait_until(ready):
    limit = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < limit
        time.sleep(0.01)


def job(folder, seed=0):
    return ShardedJob(folder=folder, header="header.json", description={"spec": {"seed": seed}}, shards=SHARDS)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_processes_and_a_finish_in_this_one_change_no_byte(tmp_path):
    calls = []
    job(tmp_path / "one").run(make, partial(complete, tmp_path / "one"), workers=1)
    job(tmp_path / "two").run(make, partial(complete, tmp_path / "two"), workers=2, warm_up=lambda: calls.append(1))

    def finish(result):
        columns, threads = result
        return Shard(columns, {"threads": threads})

    job(tmp_path / "here").run(read, partial(complete, tmp_path / "here"), finish=finish, workers=1)
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "here")
    assert set(content(tmp_path / "one")) == {"header.json", "rows.safetensors"}
    assert load_file(tmp_path / "one" / "rows.safetensors")["rows"].tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3]
    assert calls == [1]


def test_finished_shards_are_not_made_again(tmp_path):
    made = []

    def noted(shard):
        if shard == "s2" and len(made) == 2:
            raise KeyboardInterrupt
        made.append(shard)
        return make(shard)

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path).run(noted, partial(complete, tmp_path), workers=1)
    (tmp_path / ".half.0123.part").touch()
    made.append("again")
    room = []
    job(tmp_path).run(noted, partial(complete, tmp_path), workers=1, bytes_needed=lambda items: room.append(items) or 0)
    assert made == ["s0", "s1", "again", "s2", "s3"]
    assert room == [3 + 4]
    job(tmp_path).run(noted, partial(complete, tmp_path), workers=1)
    assert made[-1] == "s3"
    assert set(content(tmp_path)) == {"header.json", "rows.safetensors"}


def test_a_second_process_waits_and_finds_the_folder_complete(tmp_path, caplog):
    made, end = [], threading.Event()

    def slow(shard):
        made.append(shard)
        assert end.wait(60)
        return make(shard)

    first = threading.Thread(target=job(tmp_path).run, args=(slow, partial(complete, tmp_path)), kwargs={"workers": 1})
    second = threading.Thread(target=job(tmp_path).run, args=(die, partial(complete, tmp_path)), kwargs={"workers": 1})
    first.start()
    wait_until(lambda: made)
    with caplog.at_level(logging.WARNING):
        second.start()
        wait_until(lambda: "waiting for its end" in caplog.text)
    end.set()
    first.join(60)
    second.join(60)
    assert made == list(SHARDS)
    assert set(content(tmp_path)) == {"header.json", "rows.safetensors"}


def test_the_lock_is_held_while_shards_are_made(tmp_path):
    def held(shard):
        with pytest.raises(TimeoutError):
            FileLock(tmp_path / ".lock").acquire(timeout=0)
        return make(shard)

    job(tmp_path).run(held, partial(complete, tmp_path), workers=1)


def test_another_description_is_refused_from_the_first_shard_on(tmp_path):
    with pytest.raises(ZeroDivisionError):
        job(tmp_path).run(lambda shard: 1 / 0, partial(complete, tmp_path), workers=1)
    with pytest.raises(ValueError, match="already holds another set: seed 0, now 1"):
        job(tmp_path, seed=1).run(make, partial(complete, tmp_path))
    assert json.loads((tmp_path / "shards" / "description.json").read_text()) == {"spec": {"seed": 0}}
    with pytest.raises(ValueError, match="workers must be at least 1; got 0"):
        job(tmp_path).run(make, partial(complete, tmp_path), workers=0)


def test_a_worker_that_dies_is_reported(tmp_path):
    with pytest.raises(FaceReconError, match=r"a process ended without a result.*runtime\.workers"):
        job(tmp_path).run(die, partial(complete, tmp_path), finish=Shard, workers=1)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_damaged_shard_is_made_again(tmp_path, caplog, flipped):
    job(tmp_path / "whole").run(make, partial(complete, tmp_path / "whole"), workers=1)

    def stops(shard):
        if shard == "s3":
            raise KeyboardInterrupt
        return make(shard)

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "set").run(stops, partial(complete, tmp_path / "set"), workers=1)
    path = tmp_path / "set" / "shards" / "s1.safetensors"
    content_of_shard = bytearray(path.read_bytes())
    content_of_shard[-1] ^= 1  # a value of a column
    path.write_bytes(bytes(content_of_shard) if flipped else b"damage")
    job(tmp_path / "set").run(make, partial(complete, tmp_path / "set"), workers=1)
    assert "s1.safetensors" in caplog.text
    assert "made again" in caplog.text
    assert content(tmp_path / "set") == content(tmp_path / "whole")


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "description.json").write_text('{"spec": {"se')
    with pytest.raises(DataFileError, match=r"description\.json: expected a JSON document"):
        job(tmp_path).run(make, partial(complete, tmp_path), workers=1)


def test_shards_must_hold_the_same_columns():
    one, none = Shard({"a": torch.ones(2)}), Shard({})
    assert join_columns([none, one, none])["a"].tolist() == [1, 1]
    assert join_columns([none]) == {}
    with pytest.raises(ValueError, match="the same columns"):
        join_columns([Shard({"a": torch.ones(2)}), Shard({"b": torch.ones(2)})])


def test_threads_of_this_process_are_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        job(tmp_path).run(make, partial(complete, tmp_path), workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_bar_counts_items(tmp_path, monkeypatch):
    bars = []
    real = sharded_job.tqdm
    monkeypatch.setattr(sharded_job, "tqdm", lambda **options: bars.append(real(**options)) or bars[0])
    job(tmp_path).run(make, partial(complete, tmp_path), workers=1, progress="making")
    assert bars[0].n == bars[0].total == 10
