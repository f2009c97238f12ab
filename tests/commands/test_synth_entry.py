"""The command `facerecon synth`: what it passes on, and what it refuses in one line."""

from pathlib import Path

import pytest

from facerecon_torch.commands import synth as synth_entry
from facerecon_torch.commands.cli import main
from facerecon_torch.synthetic import load_set
from facerecon_torch.synthetic.layouts import LayoutSpec, find_layout

QUIET = ["runtime.progress=false", "runtime.workers=1"]


class Names:
    """Stands for a truth of five samples."""

    names = ("a", "b", "c", "d", "e")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LayoutSpec, Path, dict[str, object]]]:
    """What the command asks the runner for."""
    calls: list[tuple[LayoutSpec, Path, dict[str, object]]] = []

    def write_set(spec: LayoutSpec, out: Path, **given: object) -> type[Names]:
        calls.append((spec, out, given))
        return Names

    monkeypatch.setattr(synth_entry, "write_set", write_set)
    return calls


def test_keys_reach_the_layout(asked, tmp_path, capsys):
    out = tmp_path / "a b, c=[d]"
    assert main(["synth", "layout=frgc", f"output={out}", "subjects=3", "samples=4", "runtime.seed=7", *QUIET]) == 0
    spec = LayoutSpec(layout="frgc", subjects=3, samples=4, seed=7)
    assert asked == [(spec, out, {"workers": 1, "progress": False})]
    assert f"5 samples of 3 people in {out}" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["bosphorus", "facewarehouse", "frgc"])
def test_a_layout_is_as_large_as_the_real_set(asked, layout, tmp_path):
    assert main(["synth", f"layout={layout}", f"output={tmp_path}"]) == 0
    assert asked[0][0] == LayoutSpec(layout=layout, subjects=find_layout(layout).full_subjects)


def test_photos_are_what_training_reads(tmp_path, capsys):
    words = ["subjects=1", "images=1", "size=128", "family=test", "runtime.seed=5"]
    assert main(["synth", "layout=photos", f"output={tmp_path}", *words, *QUIET]) == 0
    spec = load_set(tmp_path).spec
    assert (spec.subjects, spec.images_per_subject, spec.size, spec.family, spec.seed) == (1, 1, 128, "test", 5)
    assert "1 images of 1 people" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layout=bosporus"], "layout must be one of photos, bosphorus, facewarehouse, frgc; got 'bosporus'"),
        (["layout=bosphorus", "subjects=106"], "subjects must be at most 105"),
        (["layout=bosphorus", "subjects=0"], "subjects must be a whole number of at least 1; got 0"),
        (["layout=bosphorus", "subjects=2.5"], "subjects must be a whole number of at least 1; got 2.5"),
        (["layout=bosphorus", "subjects=true"], "subjects must be a whole number of at least 1; got True"),
        (["layout=frgc", "images=3", "size=128"], "layout=frgc has no images, size; leave it out"),
        (["layout=photos", "samples=3"], "layout=photos has no samples; leave it out"),
        (["family=other"], "family must be one of"),
        (["runtime.seed=-1"], "seed"),
        (["subject=3"], "subject"),
    ],
)
def test_wrong_calls_say_what_is_wrong(words, message, tmp_path, capsys):
    assert main(["synth", f"output={tmp_path / 'none'}", *words, *QUIET]) == 2
    told = capsys.readouterr()
    assert message in told.out + told.err
    assert not (tmp_path / "none").exists()


def test_a_folder_is_needed(capsys):
    assert main(["synth", "layout=bosphorus"]) == 2
    told = capsys.readouterr()
    assert "out" in told.out + told.err
