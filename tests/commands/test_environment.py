"""Commands where folders cannot be written, the disk is full, or the user stops them: one line that says what helps."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from facerecon_torch.commands import cli, doctor
from facerecon_torch.commands.hydra_app import one_line, run_synth, run_train
from facerecon_torch.commands.train import command as train_command
from facerecon_torch.commands.train import sets
from facerecon_torch.config.recorded import build
from facerecon_torch.errors import FolderError
from facerecon_torch.files import cache_folder, require_writable, write_bytes
from facerecon_torch.model.default_face import build as default_face
from facerecon_torch.synthetic.spec import SyntheticSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def closed(tmp_path):
    """A folder that nobody can make, the root user neither: a file is in its place."""
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / "cache"


def test_a_cache_that_cannot_be_written_is_named_with_the_variable_that_helps(closed, monkeypatch):
    monkeypatch.setenv("FACERECON_CACHE", str(closed))
    assert cache_folder() == closed
    with pytest.raises(FolderError, match=rf"{closed}.*FACERECON_CACHE"):
        require_writable(closed)


def test_the_default_face_needs_no_cache(closed, monkeypatch, caplog):
    monkeypatch.setenv("FACERECON_CACHE", str(closed))
    built = default_face.load_default_face()
    assert built.n_vertices == 3960
    assert "FACERECON_CACHE" in caplog.text


def test_training_without_a_cache_stops_in_one_line(closed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FACERECON_CACHE", str(closed))
    monkeypatch.chdir(tmp_path)
    assert run_train(["experiment=small", "runtime.progress=false", f"output={tmp_path / 'run'}"]) == 2
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if line.startswith("facerecon train: ")]
    assert str(closed) in line
    assert "FACERECON_CACHE" in line
    assert line.partition(": ")[2] in (tmp_path / "run" / "train.log").read_text()
    assert "Traceback" not in told.out + told.err


def test_warp_names_the_cache_that_it_cannot_write(closed):
    code = "from facerecon_torch.geometry.mesh_queries import get_backend; get_backend()"
    env = {k: v for k, v in os.environ.items() if k != "WARP_CACHE_PATH"} | {"FACERECON_CACHE": str(closed)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode != 0
    assert f"the cache folder {closed / 'warp'} cannot be written" in done.stderr


def test_doctor_says_which_folder_cannot_be_written(closed, monkeypatch):
    monkeypatch.setenv("FACERECON_CACHE", str(closed))
    facts = doctor.examine(run_detectors=False)
    assert any("FACERECON_CACHE" in problem for problem in facts["problems"])
    assert f"cache {closed}: the cache folder" in doctor.report_text(facts)
    monkeypatch.setenv("FACERECON_CACHE", str(closed.parent.parent / "open"))
    facts = doctor.examine(run_detectors=False)
    assert not any("FACERECON_CACHE" in problem for problem in facts["problems"])
    assert facts["folders"]["cache"]["free_gb"] > 0


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "large.bin"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"large\.bin") as caught:
            write_bytes(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert one_line(caught.value).startswith(f"{path}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_255_bytes_is_written(tmp_path):
    path = tmp_path / ("a" * 255)
    write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_ctrl_c_is_one_line_that_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "facerecon_torch", "synth", f"output={tmp_path / 'set'}", "subjects=40"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "runtime.workers=1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a shell's background job ignores it
    )
    shards = tmp_path / "set" / "shards"
    deadline = time.monotonic() + 240
    while not any(shards.glob("*.safetensors")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert stderr.endswith("facerecon synth: stopped; to go on, run it again: finished subjects are kept\n")
    assert "Traceback" not in stderr
    assert any(shards.glob("*.safetensors"))


def test_version_is_ours_after_every_command(capsys):
    assert cli.main(["train", "--version"]) == 0
    assert cli.main(["--version"]) == 0
    first, second = capsys.readouterr().out.split()
    assert first == second


@pytest.mark.parametrize(
    "words",
    [["--cfg", "job"], ["--hydra-help"], ["--info"], ["-p", "x"], ["+key"], ["cv.fold=0,1"], ["runtime.seed=many"]],
)
def test_no_call_shows_hydra_or_a_traceback(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_train([*words, f"output={tmp_path / 'run'}"]) == 2
    told = "".join(capsys.readouterr())
    assert "Traceback" not in told
    assert "HYDRA" not in told
    assert "override" not in told.lower()


def test_memory_that_runs_out_is_one_line_with_what_helps(tmp_path, monkeypatch, capsys):
    def allocate(config):
        torch.empty(2**50)

    monkeypatch.setattr(train_command, "train_from_config", allocate)
    monkeypatch.chdir(tmp_path)
    assert run_train([f"output={tmp_path / 'run'}"]) == 2
    told = "".join(capsys.readouterr())
    assert "memory ran out" in told
    assert "runtime.memory=GB" in told
    assert "Traceback" not in told


def test_an_output_folder_that_cannot_be_made_is_one_line(closed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_synth([f"output={closed}", "subjects=1", "runtime.workers=1"]) == 2
    told = "".join(capsys.readouterr())
    assert str(closed.parent) in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "facerecon_torch.files.os.system",
        "facerecon_torch.files.shutil.rmtree",
        "facerecon_torch.files.write_bytes",
        "facerecon_torch.commands.cli.main",
        "facerecon_torch.no_such_module.Spec",
        "builtins.eval",
        3,
    ],
)
def test_a_config_calls_specs_of_this_package_alone(target):
    from omegaconf import OmegaConf

    with pytest.raises(ValueError, match="_target_ must name a spec of this package"):
        build(OmegaConf.create({"_target_": target, "path": "x"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hydra:\n  callbacks:\n    x:\n      _target_: os.system\n", "without a section hydra"),
        ("defaults: [override hydra/launcher: joblib]\n", "expected the config.yaml of a recorded run"),
        ("- 1\n", "expected the config.yaml of a recorded run"),
        ("a: [1\n", "expected the config.yaml of a recorded run"),
        ("[" * 5000, "expected the config.yaml of a recorded run"),
        (
            "defaults: [run_folder, _self_]\nmodel:\n  _target_: os.system\n",
            "_target_ must name a spec of this package",
        ),
    ],
)
def test_a_recorded_config_is_read_with_suspicion(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert run_train([f"config={tmp_path / 'config.yaml'}"]) == 2
    told = "".join(capsys.readouterr())
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("workers", "many", "runtime.workers must be a whole number or null; got 'many'"),
        ("seed", 1.5, "runtime.seed must be a whole number; got 1.5"),
        ("half", "yes", "runtime.half must be true or false; got 'yes'"),
        ("device", 3, "runtime.device must be text; got 3"),
        ("deterministic", [True], "runtime.deterministic must be true or false; got (True,)"),
    ],
)
def test_a_value_of_another_type_is_named(key, value, message):
    from omegaconf import OmegaConf

    config = {"_target_": "facerecon_torch.config.runtime.RuntimeSpec", key: value}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(OmegaConf.create(config), "runtime")


def test_sets_of_an_earlier_layout_are_rendered_again(tmp_path, monkeypatch):
    spec = SyntheticSpec(subjects=1, images_per_subject=1)
    now = sets.synthetic_folder(spec, str(tmp_path))
    assert now == sets.synthetic_folder(spec, str(tmp_path))
    monkeypatch.setattr(sets, "VERSION", sets.VERSION + 1)
    assert sets.synthetic_folder(spec, str(tmp_path)) != now
