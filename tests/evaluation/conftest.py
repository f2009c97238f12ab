"""A study of the tiny world with made-up estimates, and the folder of its results."""

import pytest
import torch

from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.data.prepared import load_prepared_faces
from facerecon_torch.data.specs import RecordedScans
from facerecon_torch.evaluation.study import Study, TestedFaces
from facerecon_torch.structures import FaceParameters
from tests.prepared_world import write_prepared

KINDS = ("N_N", "E_HAPPY", "LFAU_12", "YR_R10", "PR_U", "CR_RU", "O_EYE", "UFAU_43")
PEOPLE = 6


def stage(start: float, after: float, test: float, *, update: str = "in-sample", path: tuple = ()) -> dict:
    """An entry of a stage, as training reports it."""
    points = [{"relative_penalty": p, "block_weights": [1.0], "error_mm": e} for p, e in path]
    return {
        "start_mae_mm": start,
        "cross_fitted_mae_mm": after,
        "in_sample_mae_mm": after,
        "test_mae_mm": test,
        "update": update,
        "relative_penalty": 1.0,
        "path": points,
        "kept": True,
    }


@pytest.fixture(scope="session")
def tiny_faces(tmp_path_factory) -> tuple[FaceSet, object]:
    folder = tmp_path_factory.mktemp("study") / "prepared"
    setup, _ = write_prepared(folder, PEOPLE, KINDS, missing=0)
    return load_prepared_faces(RecordedScans(name="bosphorus", root=str(folder)), setup.model), setup.model


@pytest.fixture(scope="session")
def study(tiny_faces) -> Study:
    """`ours` is nearer to the truth than `landmark_fit` on every image; the mean face is the model's."""
    faces, model = tiny_faces
    generator, truth, n = torch.Generator().manual_seed(3), faces.parameters, len(faces)
    noise = torch.randn(truth.identity.shape, generator=generator) * model.identity_variance.sqrt()
    mean = FaceParameters(identity=model.identity_mean.expand(n, -1), expression=model.expression_mean.expand(n, -1))
    estimates = {
        "mean_face": mean,
        "landmark_fit": FaceParameters(identity=truth.identity + 0.5 * noise, expression=truth.expression),
        "ours": FaceParameters(identity=truth.identity + 0.1 * noise, expression=truth.expression),
    }
    folds = torch.arange(n) % 2
    early = stage(4.0, 2.0, 2.5), stage(2.0, 1.0, 2.6, path=((0.1, 2.2), (1.0, 2.1), (10.0, 2.05)))
    return Study.measured(
        model=model,
        tested=TestedFaces(faces=faces, parameters=truth, folds=folds),
        estimates=estimates,
        name="full",
        protocol="group_kfold: 2 folds that part the subjects",
        stages={"ours": [list(early), list(early)]},
        training=[{"images": 24, "subjects": 3}] * 2,
        reference="ours",
    )
