"""Runs that are killed, stopped and divided give the tables of a run that was left alone."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from facerecon_torch.commands.infer import run as run_module
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66

COUNT = 24


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    """Photographs with their landmarks; every seventh is no picture."""
    root = tmp_path_factory.mktemp("photos")
    images, landmarks = photographs
    for k in range(COUNT):
        if k % 7 == 3:
            (root / f"p{k}.png").write_text("no picture")
        else:
            save_png(images[k % len(images)], root / f"p{k}.png")
        np.save(root / f"p{k}.npy", from_paper66(landmarks[k % len(images)][None])[0].numpy())
    return root


def run(folder, output, outcome, **changes):
    given = {"formats": ["json"], "progress": False, "workers": 2, "shard_size": 4, "batch": 4, **changes}
    return infer(
        InputSpec(path=str(folder)), output, outcome.reconstructor, FileLandmarks(), InferOptions(**given)
    )  # fmt: skip


def contents(output):
    """Every file of a run but those that hold times and locks."""
    files = [p for p in output.rglob("*") if p.is_file() and not p.name.startswith((".", "progress"))]
    return {str(p.relative_to(output)): p.read_bytes() for p in files}


def started(folder, output, outcome, **changes):
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder, output, outcome), kwargs=changes)
    process.start()
    return process


def killed_often(folder, output, outcome, kills, shards):
    """Kill the workers of a run at random moments `kills` times, then let them end. Returns the shards that stood at
    every kill."""
    rng, stood = np.random.default_rng(kills), []
    for _ in range(kills):
        workers = [started(folder, output, outcome, shard=shard) for shard in shards]
        time.sleep(rng.uniform(0.0, 0.6))
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        stood.append(len(list(output.glob("parameters/part-*.parquet"))))
    for shard in shards:
        report = run(folder, output, outcome, shard=shard)
    assert report.complete
    return stood


def check_kills(folder, tmp_path, outcome, kills, shards):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(folder, whole, outcome)
    killed_often(folder, killed, outcome, kills, shards)
    expected, made = contents(whole), contents(killed)
    assert sorted(made) == sorted(expected)
    assert {name for name in made if made[name] != expected[name]} <= {"run.json"}
    if len(shards) == 1:
        assert not list(killed.rglob(".*.part"))


@pytest.mark.parametrize("shards", [["0/1"], ["0/2", "1/2"]], ids=["alone", "two workers"])
def test_killed_runs_end_with_the_bytes_of_one_that_was_left_alone(shards, folder, tmp_path, tiny_outcome):
    check_kills(folder, tmp_path, tiny_outcome, 3, shards)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [["0/1"], ["0/2", "1/2"]], ids=["alone", "two workers"])
def test_runs_killed_twenty_times(shards, folder, tmp_path, tiny_outcome):
    check_kills(folder, tmp_path, tiny_outcome, 20, shards)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_finishes_the_shard_and_the_same_call_goes_on(name, folder, tmp_path, tiny_outcome, monkeypatch):
    real = run_module.Progress.commit

    def commit(progress, counts):
        real(progress, counts)
        os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(run_module.Progress, "commit", commit)
    report = run(folder, tmp_path / "out", tiny_outcome)
    assert report.stopped == name
    # the signal comes behind the first shard; any thread may take it, so that the second is begun or not
    done = report.counts.inputs
    assert done in (4, 8)
    monkeypatch.undo()
    again = run(folder, tmp_path / "out", tiny_outcome)
    assert (again.skipped, again.stopped, again.complete) == (done, None, True)
    assert again.total.line() == "ok 21 + bad_image 3 = 24 inputs"


def test_failed_inputs_alone_are_done_again(folder, photographs, tmp_path, tiny_outcome):
    copy = tmp_path / "photos"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    output = tmp_path / "out"
    run(copy, output, tiny_outcome)
    before = {row["input"]: row for row in pq.read_table(output / "parameters").to_pylist()}
    save_png(photographs[0][10 % len(photographs[0])], copy / "p10.png")
    report = run(copy, output, tiny_outcome, retry="failed")
    assert (report.counts.failures, report.complete) == (2, True)
    rows = pq.read_table(output / "parameters").to_pylist()
    assert [row["input"] for row in rows] == [k for k in range(COUNT) if k not in (3, 17)]
    assert {row["input"]: row for row in rows if row["input"] != 10} == before
    assert [row["input"] for row in read_quarantine(output)] == [3, 17]


def test_two_processes_do_not_work_on_the_same_part(folder, tmp_path, tiny_outcome):
    worker = started(folder, tmp_path / "out", tiny_outcome)
    try:
        while not (tmp_path / "out" / ".worker-0-of-1.lock").exists():
            time.sleep(0.001)
        with pytest.raises(ValueError, match="another process works on shard=0/1 of this run"):
            run(folder, tmp_path / "out", tiny_outcome)
    finally:
        worker.kill()
        worker.join()
