import pytest
import torch

from facerecon_torch.pipeline.specs import CvSpec, DataSpec, LandmarkSourceSpec, RuntimeSpec, require_device


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
        (CvSpec, {"nested": 1}, "cv.nested must be 0 .none. or at least 2; got 1"),
        (DataSpec, {"train_subjects": 0}, "data.train_subjects must be at least 1; got 0"),
        (LandmarkSourceSpec, {"source": "mtcnn"}, "landmarks.source must be one of .*; got 'mtcnn'"),
        (
            LandmarkSourceSpec,
            {"source": "dlib", "path": "a.pts"},
            "landmarks.path is for landmarks.source=file",
        ),
        (RuntimeSpec, {"dtype": "float16"}, "runtime.dtype must be one of float32, float64; got 'float16'"),
    ],
)
def test_wrong_values_name_their_key(spec, values, message):
    with pytest.raises(ValueError, match=message):
        spec(**values)


def test_folds_are_chosen():
    assert CvSpec(fold="all").chosen(3) == [0, 1, 2]
    assert CvSpec(fold=2).chosen(3) == [2]
    with pytest.raises(ValueError, match=r"cv.fold must lie in 0..2"):
        CvSpec(fold=3).chosen(3)
