import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.features.hog import HogSpec, hog, hog_field
from facerecon_torch.features.joint import JointSpec, displacement, joint_feature


@pytest.mark.parametrize(("cell_px", "length"), [(16, 32868), (32, 8316)])
def test_length_of_the_joint_feature(cell_px, length):
    spec = JointSpec(hog=HogSpec(cell_px=cell_px))
    assert spec.length == length
    assert spec.block_sizes == (length - 132, 132)


def test_hog_stands_before_ld_however_the_blocks_are_named():
    assert JointSpec(blocks=["ld", "hog"]) == JointSpec(blocks=["hog", "ld"])
    assert JointSpec(blocks=["ld", "hog"]).block_sizes == (32736, 132)  # relative block weights are in this order


@pytest.mark.parametrize("blocks", [("hog", "ld"), ("hog",), ("ld",)], ids="+".join)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_blocks_are_concatenated_in_order(blocks, batch, rng):
    spec = JointSpec(blocks=blocks)
    crops = torch.rand(*batch, 3, 96, 96, generator=rng)
    detected, projected = 96 * torch.rand(2, *batch, 66, 2, generator=rng)
    scale = torch.rand(batch, generator=rng) + 0.5
    got = joint_feature(hog_field(crops, spec.hog), detected, projected, scale, spec)
    expected = {
        "hog": hog(crops, projected, spec.hog).flatten(-2),
        "ld": displacement(detected, projected, scale).flatten(-2),
    }
    assert got.shape == (*batch, spec.length)
    for part, block in zip(torch.split(got, spec.block_sizes, dim=-1), blocks):
        assert_close(part, expected[block])


def test_displacements_alone_need_no_pictures(rng):
    detected, projected = torch.rand(2, 66, 2, generator=rng)
    spec = JointSpec(blocks=["ld"], contour_component="full")
    got = joint_feature(None, detected, projected, torch.tensor(2.0), spec)
    assert_close(got, (detected - projected).flatten() / 2)


def test_hog_needs_a_field_of_the_same_spec(rng):
    points = torch.rand(66, 2, generator=rng)
    other = hog_field(torch.rand(3, 96, 96, generator=rng), HogSpec(vote="hard"))
    for field in (None, other):
        with pytest.raises(ValueError, match="needs a field"):
            joint_feature(field, points, points, torch.tensor(1.0), JointSpec())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": ()}, "blocks"),
        ({"blocks": ("hog", "hog")}, "once"),
        ({"blocks": ("lbp",)}, "lbp"),
        ({"contour_component": "tangent"}, "normal or full"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(options, words):
    with pytest.raises(ValueError, match=words):
        JointSpec(**options)
