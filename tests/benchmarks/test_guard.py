"""The guard notices what fell, and nothing else."""

import json

import pytest
from test_suite import fake, own, rival

from benchmarks import guard, suite
from benchmarks.case import Row

MACHINE = {"cpu": "a cpu", "instructions": "AVX512", "cpus": 2, "threads": 2, "device": "cpu"}


def rows(factor):
    """Ours takes 2 ms, theirs `factor` times as long, in every round."""
    told = {"versus": "ours"}
    return [
        Row("g", "ours", rounds_ms=[2.0, 2.2, 1.8], median_ms=2.0, share_of_copy=0.1, **told),
        Row("g", "theirs", rival=True, rounds_ms=[2.0 * factor, 2.2 * factor, 1.8 * factor], median_ms=1.0, **told),
    ]


def recorded(path, *factors):
    guard.record(path, [guard.ratios("hog on cpu", rows(f)) for f in factors], MACHINE)
    return json.loads(path.read_text())["ratios"]["hog on cpu / g: theirs : ours"]


def test_ratios_are_those_of_rounds_that_stood_together():
    found = guard.ratios("hog on cpu", rows(6.0))
    assert found == {"hog on cpu / g: theirs : ours": pytest.approx(6.0),
                     "hog on cpu / g: ours, share of copy": 0.1}  # fmt: skip


def test_the_tolerance_comes_from_the_spread_of_the_runs(tmp_path):
    quiet = recorded(tmp_path / "quiet.json", 6.0, 6.01, 5.99)
    noisy = recorded(tmp_path / "noisy.json", 6.0, 6.6, 5.4)
    assert quiet["tolerance"] == 0.25
    assert 0.3 < noisy["tolerance"] < 0.4  # 1 - exp(-4 x 0.1)
    assert quiet["ratio"] == pytest.approx(6.0)
    with pytest.raises(KeyError):  # it could halve by noise alone: it guards nothing
        recorded(tmp_path / "wild.json", 6.0, 12.0, 3.0)


@pytest.mark.parametrize(("now", "falls"), [(6.0, False), (9.0, False), (4.6, False), (4.4, True), (2.0, True)])
def test_only_a_fall_beyond_the_tolerance_is_told(now, falls, tmp_path):
    path = tmp_path / "guard.json"
    recorded(path, 6.0, 6.01, 5.99)
    answer = guard.compare(path, guard.ratios("hog on cpu", rows(now)), MACHINE)
    assert bool(answer.fell) == answer.failed == falls
    assert answer.told == (f"{1 if falls else 2} of 2 ratios are within their tolerance of the recorded ones",)
    assert [line.split(":")[0] for line in answer.lines()[1:]] == ["FELL"] * falls


@pytest.mark.parametrize(
    "other", [{"cpu": "another"}, {"instructions": "AVX2"}, {"cpus": 4}, {"threads": 1}, {"device": "a gpu"}]
)
def test_a_fall_beside_the_record_of_another_processor_is_a_note(other, tmp_path):
    path = tmp_path / "guard.json"
    recorded(path, 6.0, 6.01, 5.99)
    found = guard.ratios("hog on cpu", rows(3.5))
    assert guard.compare(path, found, {**MACHINE, "load_1min": 9.0}).failed
    answer = guard.compare(path, found, {**MACHINE, **other})
    assert not answer.failed
    (name, value), *_ = other.items()
    first, second, third = answer.lines()
    assert first.startswith("recorded on another processor (cpu a cpu, instructions AVX512, cpus 2,")
    assert f"{name} {value}" in first.split("; here ")[1]
    assert second.startswith("1 of 2 ratios")
    assert third == "note: hog on cpu / g: theirs : ours: 6 fell to 3.5 (42 %, tolerated 25 %)"


def test_an_older_record_is_judged_by_what_it_holds(tmp_path):
    path = tmp_path / "guard.json"
    recorded(path, 6.0, 6.01, 5.99)
    content = json.loads(path.read_text())
    del content["machine"]["instructions"]
    path.write_text(json.dumps(content))
    assert guard.compare(path, guard.ratios("hog on cpu", rows(3.5)), MACHINE).failed


def test_a_ratio_that_is_gone_fell(tmp_path):
    path = tmp_path / "guard.json"
    recorded(path, 6.0, 6.01, 5.99)
    answer = guard.compare(path, {"hog on cpu / g: ours, share of copy": 0.1}, MACHINE)
    assert answer.fell == ("hog on cpu / g: theirs : ours: was 6, was not measured now",)


def test_a_record_needs_runs_and_a_format(tmp_path):
    with pytest.raises(ValueError, match="at least 3 runs"):
        guard.record(tmp_path / "guard.json", [{}, {}], MACHINE)
    with pytest.raises(FileNotFoundError, match="no record at"):
        guard.compare(tmp_path / "guard.json", {}, MACHINE)
    (tmp_path / "guard.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="must be of format"):
        guard.compare(tmp_path / "guard.json", {}, MACHINE)


def test_the_command_records_checks_and_tells(monkeypatch, tmp_path, capsys):
    fake(monkeypatch, own(), rival())
    monkeypatch.setattr(guard, "_MOST", 1.0)  # microseconds are as noisy as it gets
    path = tmp_path / "guard.json"
    words = ["model", "rounds=3", "output=none", f"guard_file={path}"]
    assert suite.main([*words, "guard=check"]) == 2  # no record yet
    assert suite.main([*words, "guard=record", "guard_runs=3"]) == 0
    content = json.loads(path.read_text())
    assert set(content["ratios"]) == {
        "model on cpu / group 0: theirs : ours",
        "model on cpu / group 0: ours, share of copy",
        "model on cpu / group 0: ours, share of product",
    }
    for entry in content["ratios"].values():  # as if the record had been made by something a hundred times as fast
        entry["ratio"] *= 100
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert suite.main([*words, "guard=check"]) == 1
    assert "FELL: model on cpu / group 0: theirs : ours" in capsys.readouterr().out
    content["machine"]["cpu"] = "another"
    path.write_text(json.dumps(content))
    assert suite.main([*words, "guard=check"]) == 0
    said = capsys.readouterr().out
    assert "note: model on cpu / group 0: theirs : ours" in said
    assert "a second look" not in said
    for entry in content["ratios"].values():
        entry["ratio"] /= 10_000
    path.write_text(json.dumps(content))
    assert suite.main([*words, "guard=check"]) == 0
