"""A million mutated files: every reader answers with its own error or finite numbers, soon and in bounded memory."""

import json
import subprocess
import sys

import pytest

from tests.fuzz.mutate import mutations
from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz

TOTAL = 1_000_000
SEED = 20261128


def _run(name, count, seed):
    command = [sys.executable, "-m", "tests.fuzz", name, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_mutations_are_those_of_their_seed():
    content = b"2 landmarks:\n1.5 2.5\n" * 3
    first = list(mutations(content, 1, 200))
    assert first == list(mutations(content, 1, 200))
    assert first != list(mutations(content, 2, 200))
    assert sum(changed != content for changed in first) > 190


@pytest.mark.parametrize(
    "name", [name for name in READERS if name.startswith(("image ", "points ", "output ", "manifest "))]
)
def test_some_mutated_images_landmarks_outputs_and_manifests(name, tmp_path):
    told = fuzz(name, tmp_path, 50, SEED)
    assert told["faults"] == []
    assert told["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_refused_or_read(name, capsys):
    told = _run(name, -(-TOTAL // len(READERS)), SEED)
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: seed {SEED}, {told['inputs']} inputs, {told.get('refused', 0)} refused, "
                         f"{told.get('read', 0)} read, {told['seconds']} s")  # fmt: skip
    assert told["faults"] == []
    assert told.get("refused", 0) > 0
