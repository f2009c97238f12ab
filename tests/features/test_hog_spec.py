import pytest

from facerecon_torch.features.hog.spec import HogSpec


@pytest.mark.parametrize(
    ("variant", "cell_px", "length"),
    [("uoctti", 16, 496), ("uoctti", 32, 124), ("dalal", 16, 324), ("dalal", 32, 36)],
)
def test_length_per_landmark(variant, cell_px, length):
    assert HogSpec(variant=variant, cell_px=cell_px).length == length


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "sift"}, "uoctti, dalal"),
        ({"vote": "soft"}, "hard, linear"),
        ({"evaluation": "patch_hal"}, "patch_halo"),
        ({"cell_px": 24}, "multiple of cell_px"),
        ({"stride": 5}, "stride must divide"),
        ({"stride": 0}, "at least 1"),
        ({"patch_px": True}, "integer"),
        ({"variant": "dalal", "cell_px": 64}, "2 cells"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(options, words):
    with pytest.raises(ValueError, match=words):
        HogSpec(**options)
