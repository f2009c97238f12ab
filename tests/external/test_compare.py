"""Comparison of methods on a tiny model's people: known errors, mirrored meshes, covered vertices, tables, eos."""

import numpy as np
import pytest
import torch

from facerecon_torch.errors import DataFileError, ModelFileError
from facerecon_torch.export import save_obj
from facerecon_torch.external.eos.fit import EosFitter, EosSettings, setting_grid
from facerecon_torch.external.eos.model_files import EosFiles, write_eos_model
from facerecon_torch.external.folder import OutputHints, read_system
from facerecon_torch.external.measure import measure
from facerecon_torch.external.methods import MethodFaces, external_faces, model_group, seen_landmarks
from facerecon_torch.external.peers import EosSpec
from facerecon_torch.external.report import comparison_report, comparison_tables
from facerecon_torch.external.truth import SEVEN_ROWS, ModelTruth, Truth, read_scans, scan_of_mesh, some_of
from facerecon_torch.geometry.projection import project
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import Camera, Mesh

N = 3


@pytest.fixture(scope="module")
def model():
    return load_default_face()


@pytest.fixture(scope="module")
def people(model):
    generator = torch.Generator().manual_seed(3)
    alpha = model.identity_mean + model.identity_variance.sqrt() * torch.randn(N, model.n_identity, generator=generator)
    return model(alpha, model.expression_mean.expand(N, -1))


@pytest.fixture(scope="module")
def camera():
    turn = torch.eye(3).expand(N, 3, 3)
    none = torch.zeros(N, dtype=torch.bool)
    return Camera(rotation=turn, scale=torch.full((N,), 1.5), translation=torch.full((N, 2), 200.0), degenerate=none)


@pytest.fixture(scope="module")
def truth(model, people, camera):
    generator = torch.Generator().manual_seed(0)
    covered = torch.ones(N, model.n_vertices, dtype=torch.bool)
    covered[:, people[0, :, 1] > 30] = False
    scans = [scan_of_mesh(m, model.topology, c, points=400, generator=generator) for m, c in zip(people, covered)]
    points = seen_landmarks(model, people, camera)
    return Truth(
        name="people",
        names=("a_1", "a_2", "b_1"),
        images=(None,) * N,
        subjects=torch.tensor([0, 0, 1]),
        scans=tuple(scans),
        landmarks=project(people[:, model.topology.landmark_vertices], camera),
        points68=points,
        yaw_degrees=torch.tensor([0.0, 40.0, -70.0]),
        model=ModelTruth(meshes=people, rows=model.topology.whole_vertices, covered=covered),
    )


def faces_of(name, model, vertices, points=None):
    group = model_group(model, vertices, range(N))
    nothing = torch.full((N, 68, 2), torch.nan)
    return MethodFaces(name=name, groups=(group,), image_points=nothing if points is None else points)


def means(errors):
    return {name: float(column.nanmean()) for name, column in errors.columns.items()}


def test_the_truth_itself_has_no_error(model, people, truth):
    own = means(measure(faces_of("truth", model, people, truth.points68), truth))
    assert own.pop("complete_percent") == 100
    assert own.pop("normal_degrees") < 1
    assert own.pop("chamfer") < 0.05  # lids have an inner side, which the scan's surface lacks
    assert {name: value for name, value in own.items() if abs(value) > 2e-3} == {}
    assert {"scan_none_median_covered", "mae_rigid_all", "nme", "region_nose"} <= set(own)


def test_a_wrong_size_and_place_are_seen_where_they_are_not_aligned_away(model, people, truth):
    moved = 1.05 * people + torch.tensor([0.0, 0.0, 4.0])
    own = means(measure(faces_of("larger", model, moved, truth.points68 + 3), truth, regions=False))
    assert own["size_percent"] == pytest.approx(5, abs=0.01)
    assert own["size_vertices_percent"] == pytest.approx(5, abs=0.01)
    assert own["mae_none_all"] > own["mae_rigid_all"] > 1 > 1e-2 > own["mae_similarity_all"]
    assert own["scan_none_mean_all"] > own["scan_rigid_mean_all"] > 0.3 > 1e-2 > own["scan_similarity_mean_all"]
    box = truth.points68.amax(1) - truth.points68.amin(1)
    assert own["nme"] == pytest.approx(float((100 * 3 * 2**0.5 / box.prod(-1).sqrt()).mean()), rel=1e-5)


def test_errors_outside_of_the_covered_vertices_count_in_all_alone(model, people, truth):
    wrong = people.clone()
    wrong[..., 2] += 8.0 * ~truth.model.covered
    own = means(measure(faces_of("forehead", model, wrong, None), truth, regions=False))
    share = (~truth.model.covered)[:, truth.model.rows].float().mean()
    assert own["mae_none_covered"] < 1e-6
    assert own["mae_none_all"] == pytest.approx(8 * float(share), rel=1e-5)
    assert own["scan_similarity_median_covered"] < 0.05
    assert own["scan_similarity_mean_all"] > 10 * own["scan_similarity_mean_covered"]
    assert "nme" not in own


def test_a_folder_of_meshes_in_px_with_y_downwards(model, people, truth, tmp_path):
    for name, vertices in zip(truth.names[:2], people):
        pixels = vertices * torch.tensor([2.0, -2.0, 2.0]) + 300
        save_obj(Mesh(vertices=pixels, triangles=model.topology.triangles), tmp_path / f"{name}.obj")
    (tmp_path / "b_1.obj").write_text("nothing\n")
    rows = model.topology.landmark_vertices[list(SEVEN_ROWS)].tolist()
    system = read_system(tmp_path, truth.names, OutputHints(own=(model.n_vertices, tuple(rows))))
    errors = measure(external_faces(system, truth), truth, regions=False)
    assert errors.mirrored.tolist() == [True, True, False]
    assert errors.present().tolist() == [True, True, False]
    assert float(errors.columns["scan_similarity_mean_all"].nanmean()) < 1e-2
    assert float(errors.columns["size_percent"].nanmean()) == pytest.approx(100, abs=0.1)


def test_means_are_over_common_images_and_every_unaligned_figure_has_its_size(model, people, truth, rng):
    mean = model(model.identity_mean, model.expression_mean).expand(N, -1, -1)
    first = measure(faces_of("ours", model, people * 1.01, truth.points68), truth, regions=False)
    second = measure(faces_of("mean face", model, mean, truth.points68 + 1), truth, regions=False)
    for column in second.columns.values():
        column[0] = torch.nan
    report = comparison_report([first, second], truth, rng, reference="ours")
    assert (report["common_images"], report["methods"]["mean face"]["images"]) == (2, 2)
    column = first.columns["mae_none_all"]
    assert report["methods"]["ours"]["mean"]["mae_none_all"] == pytest.approx(float(column[1:].mean()))
    gap = report["comparisons"]["ours - mean face"]["mae_none_all"]
    assert gap["images"] == 2
    assert gap["mean"] < 0
    yaw = report["methods"]["ours"]["nme_by_yaw"]
    assert yaw["images"] == {"0-30": 0, "30-60": 1, "60-90": 1}
    assert yaw["bins"]["0-30"] is None
    for vertices in ("all", "covered"):
        tables = comparison_tables(report, vertices=vertices)
        headers = [
            line
            for line in tables.splitlines()
            if line.startswith("|") and "none" in line and "over subjects" not in line
        ]
        assert len(headers) == 2
        assert all("size %" in line for line in headers)
        assert tables.count("| mean face |") >= 2


def test_a_method_without_common_images_is_named_and_left_out(model, people, truth, rng):
    ours, early, late = (measure(faces_of(name, model, people), truth, regions=False) for name in ("ours", "a", "b"))
    for column in early.columns.values():
        column[2:] = torch.nan
    for column in late.columns.values():
        column[:2] = torch.nan
    nothing = torch.full((N, 68, 2), torch.nan)
    points = measure(MethodFaces(name="points", groups=(), image_points=nothing), truth)
    assert not points.present().any()
    report = comparison_report([ours, early, late, points], truth, rng, reference="ours")
    assert (report["left_out"], report["common_images"]) == (["b", "points"], 2)
    assert list(report["methods"]) == ["ours", "a"]
    assert report["comparisons"]["ours - b"]["mae_none_all"]["images"] == 1
    assert "without images in common with these: b, points" in comparison_tables(report)
    with pytest.raises(ValueError, match="no image has a face of any method: points"):
        comparison_report([points], truth, rng, reference="points")


def test_meshes_in_metres_are_taken_in_mm(model, people, truth):
    errors = measure(faces_of("flame", model, people / 1000), truth, regions=False)
    assert errors.metres.tolist() == [True] * N
    assert means(errors)["scan_none_mean_all"] < 1e-2
    assert means(errors)["size_percent"] == pytest.approx(0, abs=0.01)
    smaller = measure(faces_of("smaller", model, people / 500), truth, regions=False)
    assert smaller.metres.tolist() == [False] * N


def test_scans_of_a_folder(model, people, tmp_path):
    seven = people[0, model.topology.landmark_vertices[list(SEVEN_ROWS)]].numpy()
    save_obj(Mesh(vertices=people[0], triangles=model.topology.triangles), tmp_path / "p_1.obj")
    np.savetxt(tmp_path / "p_1.txt", seven)
    np.savez(tmp_path / "p_2.npz", vertices=people[0].numpy())
    np.save(tmp_path / "p_2.npy", seven)
    generator = torch.Generator().manual_seed(0)
    truth = read_scans(tmp_path, points=50, generator=generator)
    assert truth.names == ("p_1", "p_2")
    assert truth.subjects.tolist() == [0, 0]
    assert [len(scan.points) for scan in truth.scans] == [50, model.n_vertices]
    assert torch.allclose(truth.scans[0].landmarks.float(), torch.from_numpy(seven), atol=1e-3)
    assert some_of(truth, [1]).names == ("p_2",)
    (tmp_path / "p_2.npy").unlink()
    with pytest.raises(DataFileError, match="7 or 68 points in 3-D"):
        read_scans(tmp_path, points=50, generator=generator)
    with pytest.raises(ValueError, match="must be a folder of scans"):
        read_scans(tmp_path / "none", points=50, generator=generator)


@pytest.fixture(scope="module")
def eos_folder(model, tmp_path_factory):
    pytest.importorskip("eos")
    folder = tmp_path_factory.mktemp("eos")
    return write_eos_model(model, folder)


def test_eos_gets_the_same_face(model, eos_folder):
    fitter = EosFitter(eos_folder)
    shape = fitter.model.get_shape_model()
    mean = model(model.identity_mean, model.expression_mean)
    assert np.allclose(np.asarray(shape.get_mean()).reshape(-1, 3), mean.numpy(), atol=1e-4)
    assert torch.equal(fitter.triangles, model.topology.triangles)
    design, _ = model.identity_design(model.expression_mean)
    spread = (design * model.identity_variance.sqrt()).reshape(-1, model.n_identity).double().numpy()[::97]
    basis = np.asarray(shape.get_rescaled_pca_basis(), dtype=np.float64)[::97]
    assert np.allclose(basis @ basis.T, spread @ spread.T, atol=1e-3)


def test_eos_fits_landmarks_and_its_camera_is_ours(model, people, truth, eos_folder):
    fitter = EosFitter(eos_folder)
    face = fitter.fit(truth.landmarks[0], 400, 400, EosSettings())
    points = seen_landmarks(model, face.vertices[None], Camera.stack([face.camera]))
    assert float((points - from_paper66(truth.landmarks[:1])).norm(dim=-1).mean()) < 2.0
    mean = model(model.identity_mean, model.expression_mean)
    assert float((face.vertices - people[0]).norm(dim=-1).mean()) < float((mean - people[0]).norm(dim=-1).mean())
    missing = truth.landmarks[0].clone()
    missing[60] = torch.nan
    with pytest.raises(ValueError, match=r"eos\.settings\.contour=false"):
        fitter.fit(missing, 400, 400, EosSettings(contour=True))
    assert fitter.fit(missing, 400, 400, EosSettings()).vertices.shape == mean.shape
    outlined = fitter.fit(truth.landmarks[0], 400, 400, EosSettings(contour=True, iterations=2))
    assert 0.1 < float((outlined.vertices - face.vertices).norm(dim=-1).mean()) < 5


def test_eos_refuses_wrong_files_and_settings(eos_folder, tmp_path):
    with pytest.raises(ModelFileError, match="nothing is at"):
        EosFiles(tmp_path / "none.bin", eos_folder.mapping)
    (tmp_path / "bad.bin").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match="eos cannot read it"):
        EosFitter(EosFiles(tmp_path / "bad.bin", eos_folder.mapping))
    with pytest.raises(ValueError, match=r"eos\.model and eos\.mapping belong together"):
        EosSpec(model="a.bin")
    with pytest.raises(ValueError, match=r"eos\.settings\.iterations"):
        EosSettings(iterations=0)
    assert len(set(setting_grid())) == len(setting_grid())
    assert EosSettings() in setting_grid()
