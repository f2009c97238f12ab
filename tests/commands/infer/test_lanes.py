"""Lanes work at parts side by side; their answers come in order, and what takes too long fails alone."""

import threading
import time

import numpy as np
import pytest
import torch

from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.errors import TimeLimitError
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.runtime.lanes import Lanes, side_by_side

CPU = torch.device("cpu")
PARTS = [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(8)]


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param  # as the lanes found it
    torch.set_num_threads(before)


@pytest.fixture
def lanes(threads):
    made = Lanes(CPU, None)
    yield made
    made.close()


def never(item, error):
    raise AssertionError(item)


def test_answers_come_in_order_from_as_many_threads_as_torch_has(lanes, threads):
    names, inner = set(), set()

    def work(part):
        names.add(threading.get_ident())
        inner.add(torch.get_num_threads())
        time.sleep(0.01 * (part[0] % 5))
        return [-k for k in part]

    assert list(lanes.worked(PARTS, work, never)) == [-k for k in range(24)]
    assert len(names) == threads
    assert inner == {1}


def test_work_that_is_not_made_for_it_is_never_done_twice_at_once(threads):
    lanes, busy, most, inner = Lanes(CPU, None, side_by_side=False), [], [], set()

    def work(part):
        busy.append(part)
        inner.add(torch.get_num_threads())
        most.append(len(busy))
        time.sleep(0.005)
        busy.pop()
        return [0]

    list(lanes.worked(PARTS, work, never))
    lanes.close()
    assert most == [1] * len(PARTS)
    assert inner == {threads}


def test_parts_are_taken_as_lanes_become_free(lanes, threads):
    taken, worked = [], lanes.worked((taken.append(part) or part for part in PARTS), list, never)
    assert next(worked) == 0
    assert len(taken) == threads + 1


def test_alone_none_is_taken_before_the_one_before_it_is_done(threads):
    lanes, taken = Lanes(CPU, None, alone=True), []
    worked = lanes.worked((taken.append(part) or part for part in PARTS), list, never)
    next(worked)
    assert taken == PARTS[:1]
    lanes.close()


@pytest.mark.usefixtures("threads")
def test_what_takes_too_long_is_found_by_halves_and_the_others_go_on():
    lanes, release = Lanes(CPU, 0.5), threading.Event()

    def work(part):
        if 7 in part:
            release.wait(30)
        return part

    left = []
    late = lanes.worked(PARTS, work, lambda item, error: f"late {item}: {error}", lambda: left.append(1))
    answers = list(late)
    release.set()
    assert len(left) >= 2  # of the part of three, and of 7 alone
    lanes.close()
    assert answers == [*range(7), "late 7: it took longer than 0.5 s", *range(8, 24)]


@pytest.mark.usefixtures("threads")
def test_what_takes_too_long_ends_everything_where_nobody_answers_for_it():
    lanes, release = Lanes(CPU, 0.2), threading.Event()
    with pytest.raises(TimeLimitError, match=r"it took longer than 0\.2 s"):
        list(lanes.worked([[1]], lambda part: [release.wait(30)]))
    release.set()
    lanes.close()


def test_single_items_are_answered_in_order_and_the_lanes_end_with_them(threads):
    inner = []

    def work(item):
        inner.append(torch.get_num_threads())
        return -item

    assert list(side_by_side(range(9), work, CPU)) == [-k for k in range(9)]
    assert inner == [1] * 9


def test_an_error_ends_everything(lanes):
    def work(part):
        if part[0] == 6:
            raise RuntimeError("broken")
        return part

    worked = lanes.worked(PARTS, work, never)
    assert [next(worked) for _ in range(6)] == [*range(6)]
    with pytest.raises(RuntimeError, match="broken"):
        next(worked)


def test_a_run_on_several_lanes_gives_the_bytes_of_one_on_one(photographs, tmp_path, tiny_outcome):
    images, landmarks = photographs
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(12):
        save_png(images[k % len(images)], folder / f"p{k}.png")
        np.save(folder / f"p{k}.npy", from_paper66(landmarks[k % len(images)][None])[0].numpy())
    tables, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            options = InferOptions(progress=False, batch=2, shard_size=7)
            output = tmp_path / str(threads)
            infer(InputSpec(path=str(folder)), output, tiny_outcome.reconstructor, FileLandmarks(), options)
        finally:
            torch.set_num_threads(before)
        tables.append([p.read_bytes() for p in sorted(output.glob("parameters/*.parquet"))])
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]
