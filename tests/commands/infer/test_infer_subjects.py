"""`group_by=subject`: one identity per subject over all shards, whatever kills and divides the run."""

import multiprocessing
import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch import FaceReconstructor
from facerecon_torch.cascade.joint_columns import join_columns
from facerecon_torch.cascade.reconstruction import KnownSize
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.plan import RunMismatchError
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.commands.infer.subjects import join as join_module
from facerecon_torch.commands.infer.subjects import spill
from facerecon_torch.commands.infer.subjects.join import join_subjects
from facerecon_torch.export.face_table import FaceTable, ImageRow
from facerecon_torch.export.parameters import FittedFaces
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66

PEOPLE = ["anna", "böhm", "", "anna", "carl", "böhm", "anna", "dora", "anna", "böhm"]  # dora has one good picture
BAD = 4  # carl's only picture


@pytest.fixture(scope="module")
def manifest(photographs, tmp_path_factory):
    """Ten photographs with their landmarks and a manifest of subjects."""
    root = tmp_path_factory.mktemp("people")
    images, landmarks = photographs
    for k in range(len(PEOPLE)):
        if k == BAD:
            (root / f"p{k}.png").write_text("no picture")
        else:
            save_png(images[k % len(images)], root / f"p{k}.png")
        moved = landmarks[k % len(images)] + 0.3 * (k // len(images))
        np.save(root / f"p{k}.npy", from_paper66(moved[None])[0].numpy())
    lines = [f"p{k}.png,{name}" for k, name in enumerate(PEOPLE)]
    (root / "people.csv").write_text("\n".join(["path,subject", *lines]) + "\n", encoding="utf-8")
    (root / "nobody.csv").write_text("path,id\np0.png,1\n")
    return root / "people.csv"


@pytest.fixture
def small_buckets(monkeypatch):
    """Three buckets for nine faces."""
    monkeypatch.setattr(spill, "_ROWS", 4)
    monkeypatch.setattr(spill, "_READ", 2)
    monkeypatch.setattr(join_module, "_TOGETHER", 2)


def run(manifest, output, outcome, **changes):
    given = {"progress": False, "workers": 2, "shard_size": 3, "batch": 2, "group_by": "subject", **changes}
    spec = InputSpec(path=str(manifest))
    return infer(spec, output, outcome.reconstructor, FileLandmarks(), InferOptions(**given))


def rows(folder):
    return pq.read_table(folder).to_pylist()


def contents(output):
    return {p.name: p.read_bytes() for p in sorted((output / "subjects").iterdir())}


def tensors(table, names):
    return {name: torch.tensor([row[name] for row in table], dtype=torch.float64) for name in names}


def test_pictures_of_a_subject_in_several_shards_have_one_identity(manifest, tmp_path, tiny_outcome):
    report = run(manifest, tmp_path, tiny_outcome)
    assert report.total.line() == "ok 9 + bad_image 1 = 10 inputs"
    assert report.people.line().startswith("3 subjects in 8 pictures")
    single, joined = rows(tmp_path / "parameters"), rows(tmp_path / "subjects")
    order = sorted((name, k) for k, name in enumerate(PEOPLE) if name and k != BAD)
    assert [(row["subject"], row["input"]) for row in joined] == order
    before = {row["input"]: row for row in single}
    used = [before[k] for _, k in order]
    columns = tensors(used, ["alpha", "beta", "landmarks_2d"])
    columns["rotation"] = torch.tensor([row["camera"]["rotation"] for row in used])
    people = sorted({name for name, _ in order})
    numbers = torch.tensor([people.index(name) for name, _ in order])
    expected = join_columns(columns, numbers, tiny_outcome.reconstructor)
    several = [k for k, row in enumerate(joined) if row["subject"] != "dora"]
    for name, values in tensors(joined, ["alpha", "beta", "landmarks_3d", "projected_2d"]).items():
        assert_close(values[several], expected[name][several].double(), rtol=1e-4, atol=1e-3)
    assert [row["subject_pictures"] for row in joined] == [4] * 4 + [3] * 3 + [1]
    assert_close(tensors(joined, ["subject_spread_mm"])["subject_spread_mm"], expected["subject_spread_mm"].double())
    assert joined[0]["alpha"] == joined[3]["alpha"] != before[0]["alpha"]
    assert joined[0]["beta"] != joined[3]["beta"]


def test_the_only_picture_of_a_subject_keeps_its_row(manifest, tmp_path, tiny_outcome):
    run(manifest, tmp_path, tiny_outcome)
    before = {row["input"]: row for row in rows(tmp_path / "parameters")}
    (dora,) = (row for row in rows(tmp_path / "subjects") if row["subject"] == "dora")
    assert {name: dora[name] for name in before[7]} == before[7]
    assert (dora["subject_distance_mm"], dora["subject_mixed"], dora["subject_stranger"]) == (0.0, False, False)


def test_buckets_hold_whole_subjects(manifest, tmp_path, tiny_outcome, small_buckets, monkeypatch):
    run(manifest, tmp_path / "buckets", tiny_outcome)
    parts = [pq.read_table(file) for file in sorted((tmp_path / "buckets" / "subjects").glob("part-*"))]
    assert len(parts) == 3
    people = [set(part.column("subject").to_pylist()) for part in parts]
    assert sum(map(len, people)) == len(set.union(*people)) == 3
    monkeypatch.undo()
    run(manifest, tmp_path / "one", tiny_outcome)
    made = sorted((row for part in parts for row in part.to_pylist()), key=lambda row: (row["subject"], row["input"]))
    expected = rows(tmp_path / "one" / "subjects")
    assert [row["input"] for row in made] == [row["input"] for row in expected]
    for name in ("alpha", "beta", "subject_distance_mm"):
        assert_close(tensors(made, [name])[name], tensors(expected, [name])[name], rtol=1e-4, atol=1e-4)


def test_a_run_killed_while_it_joins_goes_on_behind_the_parts_that_stand(
    manifest, tmp_path, tiny_outcome, small_buckets, monkeypatch
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(manifest, whole, tiny_outcome)
    real, calls = join_module._write_part, []

    def dying(*given):
        calls.append(given[1])
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(join_module, "_write_part", dying)
        process = multiprocessing.get_context("fork").Process(target=run, args=(manifest, killed, tiny_outcome))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    (stands,) = (killed / "subjects").glob("part-*")
    assert list((killed / "subjects").glob(".*.part"))
    since = stands.stat().st_mtime_ns
    report = run(manifest, killed, tiny_outcome)
    assert report.skipped == 10
    assert stands.stat().st_mtime_ns == since
    assert contents(killed) == contents(whole)


def test_two_workers_give_the_same_tables(manifest, tmp_path, tiny_outcome):
    run(manifest, tmp_path / "whole", tiny_outcome)
    first = run(manifest, tmp_path / "two", tiny_outcome, shard="1/2")
    assert first.people is None
    assert not (tmp_path / "two" / "subjects").exists()
    last = run(manifest, tmp_path / "two", tiny_outcome, shard="0/2")
    assert last.people.faces == 8
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


def test_a_finished_run_is_joined_without_being_made_again(manifest, tmp_path, tiny_outcome):
    assert run(manifest, tmp_path, tiny_outcome, group_by=None).people is None
    report = run(manifest, tmp_path, tiny_outcome)
    assert (report.skipped, report.people.faces) == (10, 8)


def test_faces_that_are_made_again_are_joined_again(manifest, photographs, tmp_path, tiny_outcome):
    copy = tmp_path / "photos"
    copy.mkdir()
    for path in manifest.parent.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    again, output = copy / manifest.name, tmp_path / "out"
    run(again, output, tiny_outcome)
    save_png(photographs[0][0], copy / f"p{BAD}.png")
    run(again, output, tiny_outcome, retry="failed", group_by=None)
    assert not list((output / "subjects").iterdir())  # what they were made from is another table now
    report = run(again, output, tiny_outcome, retry="failed")
    assert report.people.line().startswith("4 subjects in 9 pictures")
    with pytest.raises(RunMismatchError):
        run(again, output, tiny_outcome, faces="largest")
    run(again, output, tiny_outcome, faces="largest", group_by=None, resume=False)
    assert not list((output / "subjects").iterdir())


@pytest.mark.parametrize(("name", "came"), [("nobody.csv", "has no such column"), ("", "is no manifest")])
def test_inputs_without_subjects_are_refused(name, came, manifest, tmp_path, tiny_outcome):
    with pytest.raises(ValueError, match=f"group_by=subject needs a manifest .* column `subject`; .* {came}"):
        run(manifest.parent / name, tmp_path / "out", tiny_outcome)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="group_by must be subject or null; got 'person'"):
        InferOptions(group_by="person")


def test_tables_of_somebody_else_are_kept(manifest, tmp_path, tiny_outcome):
    (tmp_path / "subjects").mkdir()
    (tmp_path / "subjects" / "part-00000.parquet").write_text("mine")
    run(manifest, tmp_path, tiny_outcome, group_by=None)
    with pytest.raises(FileExistsError, match="a file that this program did not write"):
        run(manifest, tmp_path, tiny_outcome)
    assert (tmp_path / "subjects" / "part-00000.parquet").read_text() == "mine"


def shuffled_people(model, generator, names):
    """The table of pictures of six people by eight with the error of single pictures, under these names."""
    from facerecon_torch.cascade.reconstruction import Reconstruction, extent
    from facerecon_torch.geometry.projection import project
    from facerecon_torch.structures import Camera, FaceParameters

    face = model.face_model
    n, spread = len(names), face.identity_variance.sqrt()
    who = face.identity_mean + 0.8 * spread * torch.randn(6, face.n_identity, generator=generator)
    alpha = who.repeat_interleave(8, 0) + 0.25 * spread * torch.randn(n, face.n_identity, generator=generator)
    parameters = FaceParameters(alpha, face.expression_mean.expand(n, -1))
    camera = Camera(
        rotation=torch.eye(3).expand(n, 3, 3), scale=torch.ones(n), translation=torch.full((n, 2), 120.0),
        degenerate=torch.zeros(n, dtype=torch.bool),
    )  # fmt: skip
    points, _ = model.solvers.fitter.landmarks(parameters, camera)
    seen = project(points, camera)
    faces = Reconstruction(
        parameters=parameters, camera=camera, landmarks_3d=points, projected_2d=seen, size=torch.ones(n),
        landmarks=seen, boxes=extent(seen), scores=torch.ones(n), disagreement=torch.zeros(n), face_model=face,
        naming=model.naming,
    )  # fmt: skip
    table = FaceTable(tuple(face.expression_names))
    for k, name in enumerate(names):
        table.append(ImageRow(input=k, path=f"{k}.jpg", subject=name), FittedFaces.of(faces[k : k + 1]))
    return table


@pytest.mark.parametrize(("given", "mixed", "strangers"), [("right", 0, 0), ("shuffled", 6, None), ("swapped", 0, 2)])
def test_shuffled_people_and_swapped_pictures_are_flagged(given, mixed, strangers, tmp_path):
    model = FaceReconstructor.from_pretrained()
    names = [f"s{k % 6 if given == 'shuffled' else k // 8}" for k in range(48)]
    if given == "swapped":
        names[0], names[8] = names[8], names[0]
    table = shuffled_people(model, torch.Generator().manual_seed(3), names)
    table.save(tmp_path / "parameters" / "part-00000.parquet")
    counts = join_subjects(tmp_path, model, KnownSize(), fingerprint="x", faces=48)
    assert (counts.subjects, counts.faces, counts.mixed) == (6, 48, mixed)
    assert strangers is None or counts.strangers == strangers
