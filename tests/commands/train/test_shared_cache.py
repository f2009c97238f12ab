"""Commands that start at once on an empty cache, as on a cluster: all of them succeed and give the same answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import skimage

ATTEMPTS = 10
ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *("data.train_subjects=4", "data.train_images=2", "data.test_subjects=2", "data.test_images=1"),
    *("data.shifted_subjects=0", "cv.nested=0", "cascade.stages=1", "runtime.workers=1", "runtime.progress=false"),
)


def _start(name, arguments, cache, folder):
    kept = {k: v for k, v in os.environ.items() if k != "WARP_CACHE_PATH"}
    env = {**kept, "FACERECON_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "facerecon_torch", *arguments]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_trainings_and_inferences_that_start_at_once_all_succeed(count, tmp_path):
    photo = Path(skimage.__file__).parent / "data" / "astronaut.png"
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        running = {}
        for k in range(count // 2):
            output = f"output={folder / f'train{k}'}"
            running[f"train{k}"] = _start(f"train{k}", ["train", *SMALL, output], folder / "cache", folder)
            words = ["infer", f"input={photo}", f"output={folder / f'infer{k}'}", "runtime.progress=false"]
            running[f"infer{k}"] = _start(f"infer{k}", words, folder / "cache", folder)
        statuses = {name: process.wait(timeout=600) for name, process in running.items()}
        logs = "\n".join((folder / f"{name}.log").read_text()[-2000:] for name, status in statuses.items() if status)
        assert set(statuses.values()) == {0}, f"attempt {attempt}: {statuses}\n{logs}"
        trained = [json.loads((folder / f"train{k}" / "report.json").read_text())["test"] for k in range(count // 2)]
        assert all(test == trained[0] for test in trained)
