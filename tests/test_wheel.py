"""The wheel alone, in a fresh environment, from another folder, on an awkward path."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin folder of a new environment that holds the wheel and shares this one's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    made = run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    assert made.returncode == 0, made.stderr
    (site,) = (folder / "env" / "lib").glob("python3*/site-packages")
    # A .pth file inside a folder that a .pth file names is not read: the editable install stays out.
    (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    bin_folder = folder / "env" / "bin"
    added = run(bin_folder / "python", "-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed", wheel,
                cwd=folder)  # fmt: skip
    assert added.returncode == 0, added.stderr
    return bin_folder


def test_the_wheel_says_what_may_be_done_with_it(installed):
    (about,) = installed.parent.glob("lib/python3*/site-packages/facerecon_torch-*.dist-info")
    lines = (about / "METADATA").read_text(encoding="utf-8").splitlines()
    assert "License: MIT AND Apache-2.0 AND CC0-1.0" in lines
    assert "MediaPipe" in (about / "licenses" / "NOTICE").read_text(encoding="utf-8")


def test_the_wheel_is_what_runs(installed, tmp_path):
    code = "import facerecon_torch; print(facerecon_torch.__file__)"
    where = run(installed / "python", "-c", code, cwd=tmp_path)
    assert where.stdout.startswith(str(installed.parent)), where


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_first_words_answer_without_torch(installed, tmp_path, words):
    code = (
        f"import sys; from facerecon_torch.commands.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    )
    answer = run(installed / "python", "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_infer_on_an_awkward_path(installed, tmp_path):
    skimage = pytest.importorskip("skimage")
    photo = tmp_path / "a b,c=d" / "my photo, no=1.png"
    photo.parent.mkdir()
    shutil.copy(Path(skimage.__file__).parent / "data" / "astronaut.png", photo)
    output = tmp_path / "out, of=here"
    answer = run(installed / "facerecon", "infer", f"input={photo}", f"output={output}", cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "commercial" not in answer.stdout + answer.stderr  # the default detector is free for any use
    names = {p.name for p in output.iterdir()}
    stem = photo.stem
    assert names == {f"{stem}.json", f"{stem}.obj", f"{stem}.ply", f"{stem}.glb", f"{stem}_overlay.jpg",
                     f"{stem}.mtl", f"{stem}_texture.png",
                     "parameters", "quarantine", "plan.arrow", "progress.json",
                     "run.json", ".plan.lock", ".worker-0-of-1.lock"}  # fmt: skip


def test_bench_runs_and_writes_beside_the_wheel(installed, tmp_path):
    answer = run(installed / "facerecon", "bench", "model", "sizes=tiny", "rounds=2", "threads=1", cwd=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (found,) = (tmp_path / "benchmarks_results").glob("model--*--cpu--float32--tiny.json")
    assert '"failure": null' in found.read_text()
