"""What each experiment shows of a study."""

from dataclasses import replace

import numpy as np
import torch

from facerecon_torch.evaluation.sections.registry import SECTIONS
from tests.evaluation.conftest import stage

ROTATIONS = {"N", "R10", "U", "RU"}


def section(name, study):
    return SECTIONS[name](study, torch.Generator().manual_seed(0))


def test_every_section_names_the_protocol_and_the_mean_face(study):
    for name in SECTIONS:
        shown = section(name, study)
        for table in shown.tables:
            assert study.protocol in table.caption, (name, table.caption)
            assert {len(row) for row in table.rows} <= {len(table.columns)}, name
        if name in ("fig8_external", "fig9_external_gallery"):  # of a study without other systems
            assert "evaluation.external=DIR" in shown.text
        elif name not in ("fig3_error_maps", "fig6_poses_gallery"):
            firsts = {row[0] for table in shown.tables for row in table.rows}
            assert "mean_face" in firsts, name
        for figure in shown.figures:
            assert figure.png.startswith(b"\x89PNG"), name
            assert study.protocol in figure.caption, name


def test_table1_has_the_published_figures_beside_ours(study):
    table = section("table1", study).tables[0]
    ours = next(row for row in table.rows if row[0] == "ours")
    assert ours[-4:] == ["2.4628", "2.8522", "2.6308", "3.5101"]
    measured = study.errors["ours"].rmse_z["none", "S", "centre"].mean()
    assert table.columns[1] == "vs S centre"
    assert ours[1] == f"{float(measured):.3f}"


def test_expressions_state_their_spread(study):
    shown = section("fig4_expressions", study)
    assert "the paper: below 3 %" in shown.text
    means = {
        kind: float(study.errors["ours"].mae["none", "M", "whole"][study.rows(kind)].mean())
        for kind in ("N", "E", "LFAU", "UFAU")
    }
    spread = 100 * (max(means.values()) / min(means.values()) - 1)
    assert f"{spread:.1f} %" in shown.text
    assert any("closed eyes" in table.caption for table in shown.tables)


def test_poses_are_grouped_by_their_code(study):
    heads = {head.partition(" ")[0] for table in section("fig5_poses", study).tables for head in table.columns[1:]}
    assert heads == ROTATIONS


def test_a_set_without_turned_heads_says_so(study):
    frontal = replace(
        study, tested=replace(study.tested, faces=replace(study.tested.faces, kinds=("N_N",) * len(study.tested)))
    )
    assert section("fig6_poses_gallery", frontal).text == "The set has no rotated heads."
    assert "no photographs for: pitch" not in section("fig5_poses", study).text


def test_ablation_tells_what_stages_gain(study):
    shown = section("ablation", study)
    assert "after stage 1 the test error is 2.500 mm, at best 2.600 mm (stage 2, -4.00 % gained)" in shown.text
    assert "falls by 50.0 % after stage 1" in shown.text
    stages = shown.tables[-1]
    assert stages.rows == [["ours, train", "4.000", "2.000", "1.000"], ["ours, test", "-", "2.500", "2.600"]]
    assert [figure.name for figure in shown.figures] == ["ablation_convergence"]


def test_both_kinds_of_update_stand_in_the_convergence_figure(study, monkeypatch):
    crossed = [[stage(4.0, 2.0, 2.5, update="cross-fitted"), stage(2.0, 2.0, 2.5, update="cross-fitted")]]
    long = [[stage(4.0, 2.0, 2.5), *(stage(2.0, 1.0, 2.6) for _ in range(14))]]
    stages = {"ours": crossed, "cross_fitted_15": crossed, "in_sample_15": long}
    drawn = {}
    monkeypatch.setattr(
        "facerecon_torch.evaluation.sections.convergence.curve_chart",
        lambda panels, **kwargs: drawn.update(panels) or b"",
    )
    section("ablation", replace(study, stages=stages))
    assert set(drawn["after each stage"]) == {
        f"{name}, {part}" for name in ("cross_fitted_15", "in_sample_15") for part in ("train", "test")
    }


def test_areas_and_shares_agree_with_numpy(study):
    table = section("fig7_ced", study).tables[0]
    errors = study.errors["landmark_fit"].mae["none", "M", "whole"].double().numpy()
    row = next(row for row in table.rows if row[0] == "landmark_fit")
    at = np.linspace(0, 10, 200_001)
    share = (errors[:, None] <= at).mean(0)
    assert abs(float(row[table.columns.index("AUC whole")]) - share.mean()) < 2e-4
    assert row[table.columns.index("% below 2 mm")] == f"{100 * (errors <= 2).mean():.1f}"
