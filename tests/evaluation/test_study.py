"""Errors of a study against hand-made sums, its comparisons, and the plain values of metrics.json."""

import json

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.evaluation.study import MEASURES, measure_columns


@pytest.fixture
def document(study):
    return study.document(torch.Generator().manual_seed(0))


def test_errors_are_those_of_a_loop_over_images(study):
    model, faces = study.model, study.tested.faces
    whole = model.topology.whole_vertices
    for k in (0, 7, 20):
        estimate = study.estimates["landmark_fit"][k]
        gap = (model.vertices(estimate.identity, estimate.expression) - faces.meshes[k])[whole]
        mae = sum(float(row.norm()) for row in gap) / len(whole)
        rmse = (sum(float(row[2]) ** 2 for row in gap) / len(whole)) ** 0.5
        assert float(study.errors["landmark_fit"].mae["none", "M", "whole"][k]) == pytest.approx(mae, rel=1e-4)
        assert float(study.errors["landmark_fit"].rmse_z["none", "M", "whole"][k]) == pytest.approx(rmse, rel=1e-4)


def test_comparisons_are_paired(study, document):
    gaps = document["comparisons"]["ours - landmark_fit"]
    assert set(gaps) == {measure.name for measure in MEASURES}
    gap = gaps["mae none vs M whole"]["difference_mm"]
    ours, other = (study.errors[name].mae["none", "M", "whole"] for name in ("ours", "landmark_fit"))
    assert gap["mean"] == pytest.approx(float((ours - other).mean()), rel=1e-4)
    assert gap["high"] < 0
    assert gaps["mae none vs M whole"]["percent"]["mean"] == pytest.approx(
        100 * (float(ours.mean() / other.mean()) - 1), rel=1e-3
    )


def test_the_mean_face_and_the_counts_stand_in_the_document(document):
    assert set(document["methods"]) == {"mean_face", "landmark_fit", "ours"}
    assert document["counts"] == {
        "images": 48,
        "subjects": 6,
        "folds": 2,
        "training": [{"images": 24, "subjects": 3}] * 2,
    }
    json.dumps(document, allow_nan=False)


def test_classes_and_codes_have_their_own_means(study, document):
    rows = torch.tensor([kind == "YR" for kind in study.kinds])
    entry = document["by_kind"]["YR"]
    assert entry["images"] == 6 == int(rows.sum())
    mean = study.errors["ours"].mae["none", "M", "whole"][rows].mean()
    assert_close(torch.tensor(entry["mae_mm"]["ours"]), mean)
    assert document["by_kind"]["UFAU_43"]["images"] == 6


def test_columns_name_every_error(study):
    columns = measure_columns(study.errors["ours"])
    assert {"mae_none_M_whole", "rmse_z_none_S_centre", "mae_similarity_M_whole_covered", "size_error_percent"} <= set(
        columns
    )
    assert {len(values) for values in columns.values()} == {48}
