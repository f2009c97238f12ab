from types import SimpleNamespace

import pytest
import torch

from facerecon_torch.config.evaluate import EvaluateSpecs, EvaluationSpec, MethodSpec
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.config.train import FaceCascadeSpec, FittingSpec, TrainSpecs
from facerecon_torch.data.specs import FittedPhotos, RecordedScans, SyntheticPhotos
from facerecon_torch.data.splits import CvSpec
from facerecon_torch.features.joint import JointSpec
from facerecon_torch.landmarks.registry import DETECTORS
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec
from facerecon_torch.regression import RidgeSpec
from facerecon_torch.runtime.device import require_device

CPU = torch.device("cpu")


def test_devices_are_never_silently_replaced():
    assert require_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="mps is not supported"):
        require_device("mps")
    with pytest.raises(ValueError, match="must be auto, cpu, cuda"):
        require_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_an_error():
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        require_device("cuda")
    assert require_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (
            CvSpec,
            {"protocol": "loo"},
            "cv.protocol must be one of holdout, group_kfold, paper_5x5; got 'loo'",
        ),
        (CvSpec, {"fold": "some"}, "cv.fold must be a number from 0 or all; got 'some'"),
        (CvSpec, {"fold": True}, "cv.fold must be a number from 0 or all; got True"),
        (CvSpec, {"folds": 1}, "cv.folds must be an integer of at least 2; got 1"),
        (
            RidgeSpec,
            {"relative_penalty": -1.0},
            "regression.relative_penalty must be positive, or null to choose it; got -1",
        ),
        (RidgeSpec, {"form": "x"}, "regression.form must be auto, primal or dual; got 'x'"),
        (FaceCascadeSpec, {"start": "x"}, "cascade.start must be landmark_fit or mean_face; got 'x'"),
        (FaceCascadeSpec, {"stages": 0}, "cascade.stages must be an integer of at least 1; got 0"),
        (RuntimeSpec, {"threads": 0}, "runtime.threads must be an integer of at least 1; got 0"),
        (CvSpec, {"nested": 1}, "cv.nested must be 0 .none. or at least 2; got 1"),
        (SyntheticPhotos, {"train_subjects": 0}, "data.train_subjects must be an integer of at least 2; got 0"),
        (LandmarkSourceSpec, {"source": "mtcnn"}, "landmarks.source must be one of .*; got 'mtcnn'"),
        (
            LandmarkSourceSpec,
            {"source": "dlib", "path": "a.pts"},
            "landmarks.path is for landmarks.source=file",
        ),
        (RuntimeSpec, {"mesh_backend": "x"}, "runtime.mesh_backend must be warp or pytorch3d; got 'x'"),
        (RuntimeSpec, {"dtype": "float16"}, "runtime.dtype must be one of float32, float64; got 'float16'"),
    ],
)
def test_wrong_values_name_their_key(spec, values, message):
    with pytest.raises(ValueError, match=message):
        spec(**values)


def test_folds_are_chosen():
    assert CvSpec(fold="all", folds=3).chosen == [0, 1, 2]
    assert CvSpec(fold=2).chosen == [2]
    assert CvSpec(protocol="paper_5x5", folds=3).available == 5
    with pytest.raises(ValueError, match=r"cv.fold must lie in 0..2"):
        CvSpec(fold=3, folds=3)


def test_holdout_leaves_a_fold_out_only_when_asked():
    assert not CvSpec().splits_training
    assert CvSpec(fold=0).splits_training
    assert CvSpec(protocol="group_kfold").splits_training


def specs(**groups):
    names = {"model": ModelSpec, "data": SyntheticPhotos, "landmarks": LandmarkSourceSpec, "fitting": FittingSpec}
    names |= {"features": JointSpec, "cascade": FaceCascadeSpec, "cv": CvSpec}
    return TrainSpecs(**{k: groups.get(k, v()) for k, v in {**names, "runtime": RuntimeSpec}.items()})


def test_too_few_people_for_the_folds_are_refused_before_anything_is_rendered():
    with pytest.raises(ValueError, match=r"data\.train_subjects=3 leaves fewer than 2 people to train on in 2 folds"):
        specs(data=SyntheticPhotos(train_subjects=3), cv=CvSpec(nested=2))
    assert specs(data=SyntheticPhotos(train_subjects=3), cv=CvSpec(nested=0)).cv.nested == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: RecordedScans(name="bu3dfe"), "data.name must be one of bosphorus, facewarehouse, frgc; got 'bu3dfe'"),
        (lambda: RecordedScans(name="frgc", classes="N"), r"data.classes must be a list of words, .*; got 'N'"),
        (lambda: RecordedScans(name="bosphorus", signatures=["a.xml"]), "data.signatures is for data=frgc; got"),
        (lambda: FittedPhotos(name="frgc"), "data.name must be one of w300lp, aflw2000; got 'frgc'"),
        (lambda: FittedPhotos(name="w300lp", images=0), "data.images must be an integer of at least 4; got 0"),
        (lambda: FittedPhotos(name="w300lp", max_yaw=0), r"data.max_yaw must lie in .0, 180. degrees; got 0"),
    ],
)
def test_wrong_data_names_its_key(data, message):
    with pytest.raises(ValueError, match=message):
        data()


def test_sets_of_scans_bring_landmarks_and_are_tested_in_folds():
    run = specs(data=RecordedScans(name="frgc"), landmarks=LandmarkSourceSpec()).settled(CPU)
    assert (run.landmarks.source, run.cv.protocol, run.cv.nested) == ("set", "group_kfold", 0)
    asked = specs(data=RecordedScans(name="frgc"), landmarks=LandmarkSourceSpec(source="dlib"), cv=CvSpec(fold=1))
    assert asked.settled(CPU).landmarks.source == "dlib"
    assert asked.settled(CPU).cv.chosen == [1]
    untouched = specs(cv=CvSpec(nested=2), landmarks=LandmarkSourceSpec(source="noise"))
    assert untouched.settled(CPU) == untouched
    with pytest.raises(ValueError, match=r"landmarks\.source=set is for prepared sets"):
        specs(landmarks=LandmarkSourceSpec(source="set")).settled(CPU)
    for source in ("noise", "truth"):
        drawn = specs(data=RecordedScans(name="frgc"), landmarks=LandmarkSourceSpec(source=source))
        with pytest.raises(ValueError, match=rf"landmarks\.source={source} is for synthetic sets; .* take set"):
            drawn.settled(CPU)


def evaluation(**groups):
    names = {"model": ModelSpec, "data": SyntheticPhotos, "landmarks": LandmarkSourceSpec, "fitting": FittingSpec}
    names |= {"cv": CvSpec, "runtime": RuntimeSpec, "evaluation": EvaluationSpec}
    given = {k: groups.get(k, v()) for k, v in names.items()}
    return EvaluateSpecs(test_data=None, method={"ours": MethodSpec()}, **given)


def test_an_evaluation_takes_landmarks_as_training_does():
    scans = RecordedScans(name="bosphorus")
    assert evaluation(data=scans).settled(CPU).landmarks.source == "set"
    assert evaluation(data=scans, landmarks=LandmarkSourceSpec(source="dlib")).settled(CPU).landmarks.source == "dlib"
    assert evaluation().settled(CPU).landmarks.source == "mediapipe"
    for data, source in ((SyntheticPhotos(), "set"), (scans, "noise"), (scans, "truth")):
        wrong = evaluation(data=data, landmarks=LandmarkSourceSpec(source=source))
        with pytest.raises(ValueError, match=rf"landmarks\.source={source} is for "):
            wrong.settled(CPU)


def test_automatic_landmarks_become_the_detector_that_runs(monkeypatch):
    def choose_detector(*, device, convention):
        assert convention == "mediapipe"
        return SimpleNamespace(name=f"chosen for {device}", licence="none", convention=convention, detect=len)

    monkeypatch.setattr("facerecon_torch.landmarks.auto.choose_detector", choose_detector)
    monkeypatch.setitem(DETECTORS, "chosen for cpu", ("auto", "choose_detector"))
    assert specs(landmarks=LandmarkSourceSpec()).settled(CPU).landmarks.source == "chosen for cpu"
