"""`benchmarks.accuracy.groups`: groups of people, the AUC by counting pairs, and a small set to its end."""

from itertools import product

import pytest
import torch

from benchmarks.accuracy.groups import groups_of, main, verification_auc
from benchmarks.accuracy.rendered import aligned_error
from facerecon_torch.synthetic.dataset import render_set
from facerecon_torch.synthetic.spec import SyntheticSpec
from tests.tiny_model import tiny_linear


def test_the_auc_is_the_share_of_pairs_in_order(rng):
    subjects = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    features = torch.randn(8, 4, generator=rng) + 1.5 * torch.eye(4)[subjects]
    unit = features / features.norm(dim=-1, keepdim=True)
    pairs = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    same = [float(unit[i] @ unit[j]) for i, j in pairs if subjects[i] == subjects[j]]
    other = [float(unit[i] @ unit[j]) for i, j in pairs if subjects[i] != subjects[j]]
    share = sum(a > b for a, b in product(same, other)) / (len(same) * len(other))
    assert verification_auc(features, subjects) == pytest.approx(share)
    assert 0.5 < share < 1


def test_every_person_has_a_sex_an_age_and_an_ancestry():
    macro = torch.tensor([[0.2, 0.1, 0.8, 0.1, 0.1], [0.9, 0.5, 0.1, 0.7, 0.2], [0.4, 0.9, 0.4, 0.3, 0.3]])
    groups = {name: torch.nonzero(rows).flatten().tolist() for name, rows in groups_of(macro).items()}
    assert groups == {
        "all": [0, 1, 2], "female": [0, 2], "male": [1], "youngest third": [0], "middle third": [1],
        "oldest third": [2], "African": [0], "Asian": [1], "Caucasian": [], "mixed": [2],
    }  # fmt: skip


def test_a_small_set_is_measured(tmp_path, capsys):
    render_set(SyntheticSpec(subjects=3, images_per_subject=2, seed=77, family="test"), tmp_path, workers=1)
    assert main([f"set={tmp_path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("3 people, 6 photographs")
    row = {line[:16].strip(): line[16:].split() for line in lines[2:-2]}
    mean, fit, cascade, ratio = (float(value) for value in row["all"][1:5])
    assert cascade < mean
    assert ratio == pytest.approx(cascade / fit, abs=2e-3)
    assert sum(int(row[name][0]) for name in ("female", "male") if name in row) == 3
    assert lines[-1].startswith("AUC of alpha, cascade: ")


@pytest.mark.parametrize("words", [["set=x", "cascde=y"], []])
def test_unknown_keys_and_no_set_are_refused(words):
    with pytest.raises(ValueError, match="must be"):
        main(words)


def test_people_of_another_topology_are_refused():
    model = tiny_linear()
    weights = torch.zeros(1, model.n_identity), torch.zeros(1, model.n_expression)
    with pytest.raises(ValueError, match="the set must show people of the cascade's model"):
        aligned_error(model, *weights, torch.zeros(1, model.n_vertices + 1, 3))
