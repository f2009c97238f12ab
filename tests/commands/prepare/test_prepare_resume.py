"""A run that is killed, again and again, and resumed gives the set of a run that is not: real processes, SIGKILL."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from facerecon_torch.commands.cli import main
from facerecon_torch.data.prepared import load_prepared
from tests.commands.prepare.bosphorus_folder import content, words, write_folder

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 120.0  # s


def shards(output: Path) -> int:
    return len(list((output / "shards").glob("*.safetensors"))) if (output / "shards").is_dir() else 0


def wait_until(ready: Callable[[], bool], told: str) -> None:
    end = time.monotonic() + DEADLINE
    while not ready():
        if time.monotonic() > end:
            pytest.fail(told)
        time.sleep(0.005)


def run_cli(root: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "prepare.py"), *words(root, output, *more)[1:]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=output.parent, **quiet)


def kill_after(process: subprocess.Popen[bytes], output: Path, count: int) -> None:
    """SIGKILL once `count` shards are there; then nobody of its workers may live on."""
    wait_until(lambda: shards(output) >= count or process.poll() is not None, f"no {count} shards were made")
    assert process.poll() is None, "it ended before it was killed"
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    wait_until(lambda: not any(alive(p) for p in family), f"{len(family)} processes outlive the one that was killed")


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_here(given: list[str]) -> None:
    os._exit(main(given))


def test_three_kills_leave_no_trace(tmp_path):
    # a server that imports everything while the set is written: its children then start at once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["facerecon_torch.commands.prepare.command", "facerecon_torch.commands.cli", __name__]
    )
    forkserver.ensure_running()
    root = write_folder(tmp_path / "BosphorusDB", subjects=8, scans=4)
    (root / "bs003" / "bs003_N_N_0.lm3").unlink()  # failures are remembered too
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(words(root, whole, "prepare.pictures=2")) == 0
    for count in (1, 3):
        child = context.Process(target=run_here, args=(words(root, killed, "prepare.pictures=2"),))
        child.start()
        wait_until(lambda count=count, child=child: shards(killed) >= count or not child.is_alive(), "no shards")
        child.kill()
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
        assert count <= shards(killed) < 8
    kill_after(run_cli(root, killed, "prepare.pictures=2", "runtime.workers=2"), killed, 5)
    assert shards(killed) < 8
    assert not (killed / "set.json").exists()
    assert main(words(root, killed, "prepare.pictures=2")) == 0
    assert content(killed) == content(whole)
    made = load_prepared(killed)
    assert len(made) == 31
    assert list(made.failures) == ["bs003_N_N_0"]


@pytest.mark.slow
def test_five_kills_of_five_hundred_samples(tmp_path):
    root = write_folder(tmp_path / "BosphorusDB", subjects=50, scans=10)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    told = ["prepare.pictures=2", "prepare.batch=12"]
    assert run_cli(root, whole, *told).wait(1800) == 0
    for number, count in enumerate((3, 10, 18, 27, 36)):
        kill_after(
            run_cli(root, killed, *told, f"runtime.workers={1 + number % 3}"),
            killed,
            count,
        )
    assert run_cli(root, killed, *told, "runtime.workers=2").wait(1800) == 0
    assert content(killed) == content(whole)
    assert len(load_prepared(killed)) == 500
