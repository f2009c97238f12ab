"""Many files: what is written, what overlaps, and what one bad file may do."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer import shard_worker
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.formats.ply_file import read_ply
from facerecon_torch.images import loader as image_loader
from facerecon_torch.images import save_png
from facerecon_torch.images.loader import LoadError, decoded_ahead, decoded_in_batches, read_content
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.factored import FactoredVertices
from facerecon_torch.runtime.timer import Timer, timed, untimed
from tests.images.test_device_decode import StandIn
from tests.images.test_jpeg import jpeg, smooth


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    """Photographs of the tiny world as files, their landmarks beside them; the second holds two faces."""
    images, landmarks = photographs
    root = tmp_path_factory.mktemp("photos")
    for k, (image, points) in enumerate(zip(images, landmarks)):
        save_png(image, root / f"p{k}.png")
        faces = [from_paper66(p[None])[0].tolist() for p in ((points, points + 1.5) if k == 1 else (points,))]
        (root / f"p{k}.json").write_text(json.dumps({"faces": [{"points": face} for face in faces]}))
    return root


def options(**changes) -> InferOptions:
    return InferOptions(**{"formats": [], "progress": False, "workers": 2, **changes})


def table(output: Path) -> list[dict]:
    return pq.read_table(output / "parameters").to_pylist()


def failures(output: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["reason"] for row in read_quarantine(output)}


def files_of(output: Path) -> set[str]:
    """Names in the output folder, apart from those of every run."""
    of_every_run = {"parameters", "quarantine", "plan.arrow", "run.json", "progress.json"}
    return {p.name for p in output.iterdir() if not p.name.startswith(".")} - of_every_run


def test_the_table_holds_what_single_reconstructions_say(folder, tiny_outcome, tmp_path):
    model, files = deepcopy(tiny_outcome.reconstructor), sorted(folder.glob("*.png"))
    model.detector = FileLandmarks()
    report = infer(files, tmp_path, model, FileLandmarks(), options(batch=4))
    assert (dict(report.counts.statuses), report.faces) == ({"ok": len(files)}, len(files) + 1)
    assert (report.complete, report.total) == (True, report.counts)
    assert report.seconds > 0
    assert files_of(tmp_path) == set()
    rows = iter(table(tmp_path))
    for path in files:
        faces = model.predict(path)[0]
        for k in range(len(faces)):
            one, row = faces[k], next(rows)
            assert (row["path"], row["face"], row["status"]) == (str(path), k, "ok")
            assert_close(torch.tensor(row["alpha"]), one.parameters.identity, rtol=1e-3, atol=1e-3)
            assert_close(torch.tensor(row["beta"]), one.parameters.expression, rtol=1e-3, atol=1e-3)
            assert_close(torch.tensor(row["projected_2d"]), one.projected_2d, rtol=0, atol=1e-2)
            assert row["camera"]["scale"] == pytest.approx(float(one.camera.scale), rel=1e-4)


def test_latency_mode_and_small_batches_give_the_same_table(folder, tiny_outcome, tmp_path):
    files = sorted(folder.glob("*.png"))
    tables = []
    for name, changes in (("a", {}), ("b", {"mode": "latency"}), ("c", {"batch": 1})):
        infer(files, tmp_path / name, tiny_outcome.reconstructor, FileLandmarks(), options(**changes))
        tables.append(table(tmp_path / name))
    for other in tables[1:]:
        for row, same in zip(tables[0], other, strict=True):
            assert row["path"] == same["path"]
            assert_close(torch.tensor(row["alpha"]), torch.tensor(same["alpha"]), rtol=1e-3, atol=1e-3)


def test_every_format_is_written_and_only_then_are_there_vertices(folder, tiny_outcome, tmp_path, monkeypatch):
    face, files = tiny_outcome.reconstructor, [folder / "p1.png"]
    infer(files, tmp_path, face, FileLandmarks(), options(formats=["json", "obj", "overlay"]))
    expected = {f"p1{k}.{kind}" for k in ("", "_face1") for kind in ("json", "obj")}
    assert files_of(tmp_path) == {"p1_overlay.jpg", *expected}
    assert json.loads((tmp_path / "p1.json").read_text())["alpha"] == table(tmp_path)[0]["alpha"]

    def never(*_: object) -> None:
        raise AssertionError("all vertices were computed, and nothing shows them")

    monkeypatch.setattr(face.face_model, "vertices", never)
    assert infer(files, tmp_path / "again", face, FileLandmarks(), options(formats=["json"])).counts.failures == 0
    infer(files, tmp_path / "third", face, FileLandmarks(), options(formats=["ply"]))
    assert "nothing shows them" in failures(tmp_path / "third")["p1.png"]


def test_vertices_of_many_images_are_factored(folder, tiny_outcome, tmp_path, monkeypatch):
    face, files = tiny_outcome.reconstructor, sorted(folder.glob("*.png"))
    factored = []

    def factor(model):
        factored.append(FactoredVertices(model, model.n_expression))
        return factored[0]

    monkeypatch.setattr(shard_worker, "factor_vertices", factor)
    infer(files, tmp_path / "few", face, FileLandmarks(), options(formats=["ply"]))
    monkeypatch.setattr(shard_worker, "_MANY", len(files))
    infer(files, tmp_path / "none", face, FileLandmarks(), options(formats=["json"]))
    assert not factored
    infer(files, tmp_path / "many", face, FileLandmarks(), options(formats=["ply"]))
    assert len(factored) == 1
    for path in (tmp_path / "few").glob("*.ply"):
        dense, fast = (read_ply(tmp_path / kind / path.name)[0] for kind in ("few", "many"))
        assert_close(torch.from_numpy(fast), torch.from_numpy(dense), rtol=0, atol=1e-3)


def test_bad_files_and_flat_landmarks_fail_alone(folder, tiny_outcome, tmp_path):
    whole = [folder / "p0.png", folder / "p2.png"]
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    (tmp_path / "flat.png").write_bytes(whole[0].read_bytes())
    line = [[10.0 + k, 20.0] for k in range(68)]
    (tmp_path / "flat.json").write_text(json.dumps(line))
    lost = tmp_path / "lost.png"
    lost.write_bytes(whole[0].read_bytes())
    files = [whole[0], bad, tmp_path / "flat.png", lost, tmp_path / "none.png", whole[1]]
    report = infer(files, tmp_path / "out", tiny_outcome.reconstructor, FileLandmarks(), options())
    assert (report.counts.statuses["ok"], report.faces) == (2, 2)
    reasons = failures(tmp_path / "out")
    assert set(reasons) == {"bad.png", "flat.png", "lost.png", "none.png"}
    assert "degenerate" in reasons["flat.png"]
    assert [row["path"] for row in table(tmp_path / "out")] == [str(f) for f in whole]


def test_memory_that_runs_out_halves_the_batch(folder, tiny_outcome, tmp_path, monkeypatch):
    files = sorted(folder.glob("*.png"))
    sizes, real = [], FaceReconstructor.reconstruct

    def narrow(self, images, *rest, **options):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(self, images, *rest, **options)

    monkeypatch.setattr(FaceReconstructor, "reconstruct", narrow)
    report = infer(files, tmp_path, tiny_outcome.reconstructor, FileLandmarks(), options())
    assert report.faces == len(files) + 1
    assert sizes[0] > 2 >= max(sizes[-2:])


def test_what_is_read_ahead_is_bounded_by_count_and_by_bytes(tmp_path, monkeypatch):
    files = [tmp_path / f"{k}.jpg" for k in range(12)]
    for path in files:
        path.write_bytes(jpeg(smooth(10, 10)))
    read: list[Path] = []
    begun: list[Path] = []
    real_read, real_decode = image_loader.read_bytes, image_loader.decode_pixels

    def watched_read(path, **options):
        read.append(path)
        return real_read(path, **options)

    def watched_decode(data, path, **options):
        begun.append(path)
        return real_decode(data, path, **options)

    monkeypatch.setattr(image_loader, "read_bytes", watched_read)
    monkeypatch.setattr(image_loader, "decode_pixels", watched_decode)
    for ahead, decoded, seen in ((100, 6, 10), (2, 3, 5), (1, 1, 1)):
        read.clear()
        begun.clear()
        with ThreadPoolExecutor(1) as pool:
            for k, (path, image) in enumerate(decoded_ahead(files, pool, read_content, ahead=ahead, memory=1500)):
                assert path == files[k]
                assert image.pixels.shape == (3, 10, 10)
                time.sleep(0.005)
                assert len(begun) <= k + decoded
                assert len(read) <= k + seen
        assert begun == files


def test_pictures_decoded_in_batches_come_in_order_with_what_failed(tmp_path):
    files = [tmp_path / f"{k}.jpg" for k in range(5)]
    for k in (0, 1, 3, 4):
        files[k].write_bytes(jpeg(smooth(20 + k, 30)))
    files[3].write_bytes(files[3].read_bytes()[:300])
    decoder = StandIn()
    with ThreadPoolExecutor(2) as pool:
        loaded = list(decoded_in_batches(files, pool, read_content, decoder, batch=2))
    assert [path for path, _ in loaded] == files
    assert [isinstance(answer, LoadError) for _, answer in loaded] == [False, False, True, True, False]
    assert [loaded[k][1].pixels.shape[1] for k in (0, 1, 4)] == [20, 21, 24]
    assert decoder.calls == [2, 1]


def test_batches_of_the_device_are_bounded_by_the_bytes_of_their_pictures(tmp_path):
    files = [tmp_path / f"{k}.jpg" for k in range(5)]
    for k, path in enumerate(files):
        path.write_bytes(jpeg(smooth(200 if k == 2 else 20, 30)))
    decoder = StandIn()
    with ThreadPoolExecutor(2) as pool:
        loaded = list(decoded_in_batches(files, pool, read_content, decoder, batch=4, memory=2 * 3 * 20 * 30))
    assert [path for path, _ in loaded] == files
    assert decoder.calls == [2, 1, 2]


def test_stage_times_count_each_moment_once(folder, tiny_outcome, tmp_path):
    times = Timer()
    with times.active(), timed("fit"):
        time.sleep(0.02)
        with timed("features"):
            time.sleep(0.05)
        with untimed(), timed("crop"):
            time.sleep(0.01)
    assert 0.03 <= times.seconds["fit"] < 0.05 <= times.seconds["features"] < 0.1
    assert "crop" not in times.seconds
    whole = Timer()
    infer(sorted(folder.glob("*.png")), tmp_path, tiny_outcome.reconstructor, FileLandmarks(), options(), times=whole)
    assert set(whole.seconds) == {"read", "decode", "detect", "crop", "fit", "features", "regress"}
    assert whole.line().startswith("read ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "fast"}, "mode must be throughput or latency; got 'fast'"),
        ({"decode": "gpu"}, "decode must be cpu or device; got 'gpu'"),
        ({"batch": 0}, "batch must be at least 1; got 0"),
        ({"mode": "latency", "batch": 2}, "batch must be null or 1, got 2"),
        ({"formats": ["stl"]}, "formats must be among"),
        ({"engine": "dask"}, "engine must be local or ray; got 'dask'"),
        ({"retry": "all"}, "retry must be failed or null; got 'all'"),
        ({"shard": "2/2"}, "shard must be I/N with I from 0 to N - 1, such as 0/2; got '2/2'"),
        ({"shard": "0/2", "resume": False}, "resume=false replaces a run"),
        ({"shard_size": 0}, "shard_size must be at least 1; got 0"),
        ({"image_seconds": 0.0}, "images.seconds must be a positive number; got 0"),
        ({"ahead_mb": -1}, "images.ahead_mb must be a positive number; got -1"),
    ],
)
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_the_batch_follows_the_device():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert (options().faces_at_once(cpu), options().faces_at_once(cuda)) == (32, 256)
    assert options(mode="latency").faces_at_once(cuda) == 1
    assert options(batch=7).faces_at_once(cuda) == 7
