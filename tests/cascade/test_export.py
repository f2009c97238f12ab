"""The landmark-given path as one program, in the package and as a file without it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade import export_file as exported_file
from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.cascade.crops import canonical_crops
from facerecon_torch.cascade.export import CascadeProgram, probe
from facerecon_torch.cascade.export_file import DOCUMENT
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.cli import main
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.fitting.crop import CropSpec, camera_from_crop
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.model.io import save_model
from facerecon_torch.regression.cascade import Cascade
from facerecon_torch.regression.ridge import Ridge
from facerecon_torch.regression.stage import Stage
from facerecon_torch.structures import Camera
from tests.tiny_model import tiny_bilinear

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (1, 2, 5)
OUTPUTS = (
    *("identity", "expression", "rotation", "scale", "translation", "degenerate", "landmarks_3d", "projected_2d"),
    "vertices",
)
# float32: the same operations, in a process with another number of threads; sums of the features may be reordered.
ROUNDING = 1e-5
# The landmark fit sees landmarks of some 200 px in float32 before or behind the crop's map: they differ by 2e-5 px, and
# an expression weight, at most 0.4 here, by up to 1e-5 for it.
MOVED = 5e-5

# No site, so no .pth file that leads to the package; and a name that cannot be imported even where it is installed.
ALONE = """
import sys
sys.path.append(sys.argv[1])
sys.modules["facerecon_torch"] = None
import torch
program = torch.export.load(sys.argv[2]).module()
answers = [program(*inputs) for inputs in torch.load(sys.argv[3])]
assert not [name for name in sys.modules if name.startswith("facerecon_torch.")]
torch.save(answers, sys.argv[4])
"""


def small_face(*, contour: str = "fixed", evaluation: str = "dense", start: str = "landmark_fit") -> FaceReconstructor:
    """One stage of chance weights: as few operations as a cascade can have."""
    model, draw = tiny_bilinear(), torch.Generator().manual_seed(4)
    features = JointSpec(hog=HogSpec(patch_px=32, evaluation=evaluation))
    targets = model.n_identity + model.n_expression
    weight = 0.001 * torch.randn(features.length, targets, generator=draw)
    stage = Stage(Ridge(weight, torch.zeros(targets), 1.0, "dual"), features.block_sizes, torch.ones(2))
    fit = FitSpec(rounds=1, contour=contour)
    crop = CropSpec(size=96, px_per_mm=0.4)
    spec = ReconstructorSpec(fit=fit, crop=crop, features=features, start=start, crop_fit=fit)
    return FaceReconstructor(model, Cascade((stage,)), spec)


def run_alone(program: Path, inputs: list, folder: Path) -> list[dict[str, torch.Tensor]]:
    torch.save(inputs, folder / "inputs.pt")
    packages = str(Path(torch.__file__).resolve().parents[1])
    files = [packages, str(program), str(folder / "inputs.pt"), str(folder / "answers.pt")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "answers.pt")


def assert_same(answer, expected):
    assert list(answer) == list(expected)
    for name, value in expected.items():
        if value.dtype == torch.bool:
            assert torch.equal(answer[name], value)
        else:
            assert_close(answer[name], value, rtol=0.0, atol=ROUNDING * float(value.abs().max()))


def save_face(face: FaceReconstructor, folder: Path) -> tuple[str, str]:
    face.save_pretrained(folder / "cascade.safetensors")
    save_model(face.face_model, folder / "model.safetensors")
    return str(folder / "cascade.safetensors"), str(folder / "model.safetensors")


def export_cascade(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process without the type checks of the tests, whose wrappers cannot be recorded."""
    command = [sys.executable, "-m", "facerecon_torch.commands.cli", "export-cascade", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.slow
def test_a_file_answers_without_the_package(tmp_path):
    face, out = small_face(), tmp_path / "out" / "small.pt2"
    cascade, model = save_face(face, tmp_path)
    done = export_cascade(cascade, str(out), "--model", model)
    assert done.returncode == 0, done.stderr
    assert "input  crops         [b, 3, 96, 96] RGB in [0, 1]" in done.stdout
    assert "output landmarks_3d  [b, 66, 3] mm, model frame" in done.stdout
    assert [path.name for path in out.parent.iterdir()] == ["small.pt2"]
    assert str(ROOT).encode() not in out.read_bytes()  # no paths of the machine that wrote it

    program = CascadeProgram(FaceReconstructor.from_pretrained(cascade, face_model=face.face_model))
    probes = [probe(program.reconstructor, faces, seed=7) for faces in BATCHES]
    answers = run_alone(out, probes, tmp_path)
    for answer, inputs in zip(answers, probes):
        with torch.no_grad():
            assert_same(answer, program(*inputs))
    assert answers[-1]["degenerate"].tolist() == [False, False, False, False, True]
    check_description(out, face)


def check_description(out: Path, face: FaceReconstructor) -> None:
    with zipfile.ZipFile(out) as archive:
        name = next(name for name in archive.namelist() if name.endswith(DOCUMENT))
        about = json.loads(archive.read(name))
    assert about["format"] == "facerecon-program"
    assert about["model_sha256"] == face.face_model.sha256
    assert about["crop"]["px_per_mm"] == face.spec.crop.px_per_mm
    assert list(about["outputs"]) == list(OUTPUTS[:-1])
    assert about["outputs"]["identity"]["shape"] == ["b", face.face_model.n_identity]
    # float32 products in another process, whose number of threads may order their sums otherwise
    told = torch.tensor(about["mean_landmarks"], dtype=torch.float64)
    assert_close(told, face.solvers.cropper.landmarks, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("evaluation", ["dense", "patch"])
@pytest.mark.parametrize("start", ["landmark_fit", "mean_face"])
def test_the_program_is_the_reconstruction_behind_the_crop(evaluation, start):
    face = small_face(contour="marching", evaluation=evaluation, start=start)
    program = CascadeProgram(face)
    pictures, landmarks = probe(face, 3)
    pictures = torch.nn.functional.pad(pictures, (30, 10, 20, 40), mode="reflect")
    landmarks = landmarks + torch.tensor([30.0, 20.0])
    crops, inside = canonical_crops(list(pictures), landmarks, face.solvers.crop_fitter, face.solvers.cropper)
    expected = face.reconstruct(list(pictures), landmarks)
    with torch.no_grad():
        answer = program(crops.image, inside)
    seen = Camera(**{name: answer[name] for name in ("rotation", "scale", "translation", "degenerate")})
    camera = camera_from_crop(seen, crops.to_crop)
    assert torch.equal(camera.degenerate, expected.camera.degenerate)
    assert expected.camera.degenerate.tolist() == [False, False, True]
    pairs = {
        "identity": (answer["identity"], expected.parameters.identity),
        "expression": (answer["expression"], expected.parameters.expression),
        "rotation": (camera.rotation, expected.camera.rotation),
        "scale": (camera.scale, expected.camera.scale),
        "landmarks": (answer["landmarks_3d"], expected.landmarks_3d),
    }
    for name, (found, wanted) in pairs.items():
        gap = float((found - wanted).abs().max())
        rounding = MOVED if start == "landmark_fit" else ROUNDING
        assert gap <= rounding * float(wanted.abs().max()), name


def test_vertices_are_those_of_the_model():
    face = small_face()
    program = CascadeProgram(face, vertices=True)
    with torch.no_grad():
        answer = program(*probe(face, 2))
    assert tuple(answer) == OUTPUTS
    assert_close(answer["vertices"], face.face_model.vertices(answer["identity"], answer["expression"]))


def test_a_program_that_differs_leaves_no_file(tmp_path, monkeypatch, capsys):
    cascade, model = save_face(small_face(), tmp_path)

    class Recorded:
        """A written program whose scale is wrong by a thousandth."""

        def module(self):
            program = CascadeProgram(FaceReconstructor.from_pretrained(cascade, face_model=model))
            return lambda *inputs: {k: v * 1.001 if k == "scale" else v for k, v in program(*inputs).items()}

    monkeypatch.setattr(exported_file, "export_program", lambda program: None)
    monkeypatch.setattr(torch.export, "save", lambda program, file, extra_files: file.write(b"program"))
    monkeypatch.setattr(torch.export, "load", lambda file: Recorded())
    out = tmp_path / "out" / "wrong.pt2"
    assert main(["export-cascade", cascade, str(out), "--model", model]) == 1
    assert "scale of 1 faces differs by 0.001" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{cascade}", "out.onnx", "--model", "{model}"], "must end in .pt2; got out.onnx"),
        (["none.safetensors", "out.pt2"], "nothing is at none.safetensors"),
        (["{cascade}", "out.pt2"], "trained for another face model"),
        (["{cascade}", "out.pt2", "--model", "none.safetensors"], "none.safetensors"),
    ],
)
def test_wrong_calls_are_said(words, message, tmp_path, capsys, monkeypatch):
    cascade, model = save_face(small_face(), tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["export-cascade", *(word.format(cascade=cascade, model=model) for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_device_is_said(capsys):
    assert main(["export-cascade", "out.pt2", "--device", "cuda"]) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_the_cascade_of_the_package_answers_without_it(place, tmp_path):
    if place == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    out = tmp_path / "cascade.pt2"
    done = export_cascade(str(out), "--device", place)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size < 40e6  # the rows of the landmarks, not the 61 MB of the whole model
    program = CascadeProgram(FaceReconstructor.from_pretrained().to(place))
    probes = [probe(program.reconstructor, faces, seed=9) for faces in BATCHES]
    for answer, inputs in zip(run_alone(out, probes, tmp_path), probes):
        with torch.no_grad():
            assert_same(answer, program(*inputs))


@pytest.mark.slow
def test_the_example_of_the_documents_runs_with_torch_alone(tmp_path):
    assert export_cascade(str(tmp_path / "cascade.pt2")).returncode == 0
    face = FaceReconstructor.from_pretrained()
    landmarks = 2.0 * probe(face, 1, seed=3)[1][0] + 80
    image = torch.nn.functional.avg_pool2d(torch.rand(3, 800, 800, generator=torch.Generator().manual_seed(1)), 9, 1, 4)
    torch.save((image, landmarks), tmp_path / "inputs.pt")
    example = (ROOT / "docs" / "exporting.md").read_text().split("```python\n")[1].split("```")[0]
    packages = str(Path(torch.__file__).resolve().parents[1])
    script = f"""
import sys
sys.path.append({packages!r})
sys.modules["facerecon_torch"] = None
{example}
torch.save(reconstruct(*torch.load("inputs.pt")), "answer.pt")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    answer = torch.load(tmp_path / "answer.pt")
    expected = face.reconstruct([image], landmarks[None])
    # Another kernel resamples the crop, and a face of noise says nothing: what remains is the landmarks' say.
    assert float((answer["projected_2d"] - expected.projected_2d).norm(dim=-1).mean()) < 1.0
    assert float((answer["scale"] / expected.camera.scale - 1).abs()) < 0.02
