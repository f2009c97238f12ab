"""facerecon bench from the outside: status, table, files, faults and what is not measured."""

import json
import math
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

from benchmarks import plots, suite
from benchmarks.case import Alone, Case, Context, Group, Row
from benchmarks.table import table
from facerecon_torch.commands.cli import main as facerecon

FIELDS = {
    "group", "name", "unit", "items", "rival", "axis", "x", "versus", "median_ms", "low_ms", "spread_ms", "rounds_ms",
    "per_second", "peak_mib", "base_mib", "host_peak_mib", "memory", "bytes", "operations", "formula", "precision",
    "share_of_copy", "share_of_product", "error", "limits", "failure", "skipped",
}  # fmt: skip


def fake(monkeypatch, *cases, groups=1, **told):
    """The suite with one bench, `model`, of these cases."""

    def make(context):
        for k in range(groups):
            yield Group(name=f"group {k}", cases=cases, axis="N", x=k + 1, **told)

    bench = SimpleNamespace(TITLE="a bench", SIZES={size: {"n": 1} for size in suite.SIZES}, groups=make)
    monkeypatch.setattr(suite, "bench_module", lambda name: bench)
    ceilings = {"device": "cpu", "dtype": "float32", "threads": 1, "copy_gb_s": 10.0,
                "product_gflop_s": {"float32": 100.0, "float64": 50.0}}  # fmt: skip
    monkeypatch.setattr(suite, "measure_ceilings", lambda *_, **__: ceilings)


def own(**told):
    return Case(**{"name": "ours", "run": lambda: sum(range(1000)), "items": 2, "bytes": 1e6, "operations": 1e6,
                   "formula": "n^2", **told})  # fmt: skip


def rival(**told):
    return Case(name="theirs", run=lambda: sum(range(100_000)), items=2, rival=True, **told)


def written(folder):
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["model", pytest.param("fit", marks=pytest.mark.slow)])
def test_a_bench_runs_through_the_command(name, tmp_path, capsys):
    assert facerecon(["bench", name, "sizes=tiny", "rounds=2", "batch=2,3", f"output={tmp_path}"]) == 0
    content, told = written(tmp_path), capsys.readouterr().out
    assert content["bench"] == name
    assert {"cpu", "cpus", "device", "driver", "threads", "versions", "commit"} <= set(content["machine"])
    assert content["ceilings"]["copy_gb_s"] > 0
    assert content["ceilings"]["product_gflop_s"]["float32"] > 0
    assert content["settings"]["batch"] == [2, 3]
    assert content["rows"]
    assert all(set(row) == FIELDS and row["failure"] is None for row in content["rows"])
    assert all(row["median_ms"] > 0 and len(row["rounds_ms"]) == 2 for row in content["rows"])
    assert any(row["error"] for row in content["rows"])
    assert "not measured" in told
    assert (tmp_path / f"{name}--over-batch.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", suite.NAMES)
def test_every_bench_runs_at_a_tiny_size(name, tmp_path):
    assert facerecon(["bench", name, "sizes=tiny", "rounds=1", f"output={tmp_path}"]) == 0
    rows = written(tmp_path)["rows"]
    assert rows
    assert all(set(row) == FIELDS for row in rows)
    assert all(row["failure"] is None and (row["median_ms"] or row["skipped"]) for row in rows)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (own(error=lambda answer: {"off": float(answer)}, limits={"off": 1.0}), "off 5.00e+05 is above 1e+00"),
        (own(error=lambda answer: {"off": math.nan}, limits={"off": 1.0}), "off nan is above"),
        (own(error=lambda answer: {}, limits={"off": 1.0}), "off was not measured"),
        (own(run=lambda: 1 / 0), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_answer_is_a_fault(case, message, monkeypatch, tmp_path, capsys):
    fake(monkeypatch, case, rival())
    assert suite.main(["model", "rounds=2", f"output={tmp_path}"]) == 1
    ours, theirs = written(tmp_path)["rows"]
    assert message in ours["failure"]
    assert theirs["failure"] is None
    assert theirs["median_ms"] > 0
    assert f"FAULT: {ours['failure']}" in capsys.readouterr().out


def test_cuda_is_said_to_be_not_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fake(monkeypatch, own())
    assert suite.main(["model", "device=cpu,cuda", "rounds=2", f"output={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert "CUDA: not measured" in told
    (line,) = [line for line in told.splitlines() if line.strip().startswith("ours ")]
    assert line.split("|")[1].strip() == "not measured"


def test_what_cannot_run_here_says_why(monkeypatch, tmp_path, capsys):
    fake(monkeypatch, own(), rival(missing="Theirs is not installed"))
    assert suite.main(["model", "rounds=2", f"output={tmp_path}"]) == 0
    assert "Theirs is not installed" in capsys.readouterr().out
    assert written(tmp_path)["rows"][1]["median_ms"] is None


def test_time_that_has_run_out_skips_and_says_so(monkeypatch, tmp_path):
    fake(monkeypatch, own(), expected_s=1e6)
    assert suite.main(["model", "minutes=1", f"output={tmp_path}"]) == 0
    (row,) = written(tmp_path)["rows"]
    assert row["skipped"] == "no time left for it (about 1000000 s)"


def test_plots_without_matplotlib(monkeypatch, tmp_path, capsys):
    fake(monkeypatch, own(), groups=2)

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(plots.importlib, "import_module", absent)
    assert suite.main(["model", "rounds=2", f"output={tmp_path}"]) == 0
    assert "pip install 'facerecon-torch[bench]'" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert suite.main(["model", f"output={tmp_path / 'file' / 'results'}"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"facerecon bench: the output folder {tmp_path / 'file' / 'results'} cannot be written")
    assert told.err.rstrip().endswith("give output=FOLDER, or output=none")
    assert not told.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modle"], "unknown bench 'modle'; did you mean 'model'?"),
        (["model", "sizes=huge"], "sizes must be one of tiny, quick, small, full"),
        (["model", "out=here"], "unknown key 'out'; did you mean 'output'"),
        (["model", "bach=3"], "unknown key 'bach'; did you mean 'batch'"),
        (["model", "rounds=0"], "rounds=0: expected a whole number of at least 1"),
        (["model", "device=tpu"], "device=tpu: expected cpu, cuda"),
        (["model", "batch=many"], "batch=many: expected a number"),
    ],
)
def test_wrong_words_are_named(words, message, capsys):
    assert suite.main(words) == 2
    assert message in capsys.readouterr().err


def test_the_table_is_right():
    def row(name, ms, **told):
        return Row("g", name, items=2, versus="ours", median_ms=ms, rounds_ms=[ms, ms], per_second=1e3 / ms, **told)

    rows = {
        "cpu": [row("ours", 8.0, peak_mib=3.0, share_of_copy=0.25), row("theirs", 32.0, rival=True)],
        "cuda": [row("ours", 0.5, peak_mib=7.0)],
    }
    told = table("model", "a bench", rows)
    ours = next(line for line in told.splitlines() if line.startswith("  ours"))
    assert [part.strip() for part in ours[58:].split("|")] == ["8 ms 125/s", "0.5 ms 2,000/s", "16.0", "3 / 7"]
    theirs = next(line for line in told.splitlines() if line.startswith("  (rival) theirs"))
    assert theirs.split("|")[1].strip() == "not measured"
    assert "cpu: 25.0 % of the copy ceiling" in told
    assert "g: ours is 4 times as fast as theirs (cpu)" in told
    lost = {"cpu": [row("ours", 32.0), row("theirs", 8.0, rival=True)]}
    assert "g: ours takes 4 times as long as theirs (cpu)" in table("model", "a bench", lost)


def test_shares_of_the_ceilings(monkeypatch, tmp_path):
    fake(monkeypatch, own())
    suite.main(["model", "rounds=3", f"output={tmp_path}"])
    (row,) = written(tmp_path)["rows"]
    seconds = row["median_ms"] * row["items"] / 1e3
    assert row["share_of_copy"] == pytest.approx(1e6 / seconds / 10e9)
    assert row["share_of_product"] == pytest.approx(1e6 / seconds / 100e9)
    assert row["per_second"] == pytest.approx(2 / seconds)


def test_memory_of_a_case_is_its_own():
    def take():
        return torch.ones(2**24).sum()  # 64 MiB

    from benchmarks.timing import measure_group

    context = Context(torch.device("cpu"), torch.float32, {}, 1, rounds=1)
    group = Group(name="g", cases=[Case(name="large", run=take), Case(name="small", run=lambda: None)])
    large, small = measure_group(group, context, ceilings={})
    assert 60 < large.peak_mib < 90
    assert small.peak_mib < 8


def test_memory_that_an_earlier_call_left_to_the_allocator_is_not_counted():
    # Blocks below these limits stay with the process when they are freed; each call needs a larger one than that.
    script = """
import ctypes, torch
from benchmarks.case import Case, Context, Group
from benchmarks.timing import measure_group
assert ctypes.CDLL(None).mallopt(-3, 2**30) and ctypes.CDLL(None).mallopt(-1, 2**31 - 1)
kept = []
def take():
    whole = torch.ones(2**24 + 2**18 * len(kept))  # 64 MiB, then 65
    kept.append(torch.zeros(256))
    return whole.sum()
context = Context(torch.device("cpu"), torch.float32, {}, 1, rounds=1)
(row,) = measure_group(Group(name="g", cases=[Case(name="large", run=take)]), context, ceilings={})
print(row.peak_mib)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert 60 < float(done.stdout) < 90


def test_no_answer_of_an_earlier_call_is_held_while_memory_is_measured():
    from benchmarks.timing import measure_group

    alive, held = weakref.WeakSet(), []

    class Answer:
        pass

    def take():
        held.append(len(alive))
        answer = Answer()
        alive.add(answer)
        return answer

    context = Context(torch.device("cpu"), torch.float32, {}, 1, rounds=1)
    measure_group(Group(name="g", cases=[Case(name="one", run=take)]), context, ceilings={}, warm_ups=2)
    assert held == [0, 0, 0]


def test_a_case_alone_in_its_process_reports_its_own_peak():
    from benchmarks.timing import measure_group

    context = Context(torch.device("cpu"), torch.float32, {}, 1, rounds=1)
    alone = Alone(name="a stage", build="bench_stage:stage_case",
                  arguments={"n": 240, "d": 300, "rows_per_person": 12, "gb": 2.0, "stream": True})  # fmt: skip
    ceilings = {"copy_gb_s": 10.0, "product_gflop_s": {"float32": 100.0}, "dtype": "float32"}
    (row,) = measure_group(Group(name="g", cases=[alone], axis="N", x=240.0), context, ceilings=ceilings)
    assert row.failure is None, row.failure
    assert row.memory.startswith("a fresh process")
    assert 0 < row.peak_mib < 300
    assert row.base_mib > 50
    assert 0 < row.error["training variance left"] < 0.5
    assert row.error["penalties scored"] >= 3
    assert row.peak_mib < row.error["whole process, GB"] * 1000 < 2000
    assert (row.axis, row.x, row.name) == ("N", 240.0, "a stage")
    broken = Alone(name="b", build="bench_ridge:nothing", arguments={})
    (row,) = measure_group(Group(name="g", cases=[broken]), context, ceilings=ceilings)
    assert "AttributeError" in row.failure
