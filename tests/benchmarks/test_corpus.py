"""The bench of long runs: its files, what it runs on them, and the line through the memory."""

import mmap
import time

import numpy as np
import pytest

from benchmarks.corpus import Corpus, growth, main
from facerecon_torch.synthetic import SyntheticSpec
from facerecon_torch.synthetic.dataset import render_set


def test_memory_that_grows_and_memory_that_stands():
    held = []

    def hold() -> None:
        for _ in range(40):
            held.append(mmap.mmap(-1, 2**21))  # arrays could take memory that was freed before
            held[-1].write(bytes(2**21))
            time.sleep(0.02)

    slope, scatter, peak = growth(hold, every=0.01)
    assert 70 < slope < 90
    assert scatter < 8
    assert peak > 80
    slope, _, _ = growth(lambda: time.sleep(0.5), every=0.01)
    assert abs(slope) < 8


def test_files_are_as_many_as_asked_and_all_end_in_tables(tmp_path):
    rendered = render_set(SyntheticSpec(subjects=1, images_per_subject=2, size=160), tmp_path, progress=False)
    (tmp_path / "files").mkdir()
    corpus = Corpus(rendered.images[0].parents[1], tmp_path / "files", 3, 200)
    assert sorted(p.name for p in corpus.folder.glob("*.jpg")) == [f"{k:07d}.jpg" for k in range(3)]
    assert [p.shape[-2:] for p in corpus.pictures] == [(200, 200)] * 2
    assert np.allclose(corpus.points[:2], rendered.landmarks * 200 / 160)
    corpus.in_memory()
    corpus.run(corpus.manifest)
    corpus.images = 4
    with pytest.raises(RuntimeError, match="4 inputs were given"):
        corpus.run(corpus.manifest)


def test_wrong_words():
    with pytest.raises(ValueError, match="keys must be photos"):
        main(["photo=x"])
    with pytest.raises(ValueError, match="photos must be a rendered set"):
        main(["of=memory"])
