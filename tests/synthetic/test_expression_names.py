"""Names of expressions in other models, as units of the default face."""

from facerecon_torch.formats.facewarehouse import EXPRESSION_NAMES
from facerecon_torch.model.default_face import load_source
from facerecon_torch.synthetic.people.expression_names import unit_names
from facerecon_torch.synthetic.people.sampling import draw_mixture, knows_posed_faces


def test_spellings_of_units_are_one():
    spelt = ["eyeBlink_L", "EyeBlinkRight", "jaw_open", "JawLeft", "mouthSmile.r", "Mouth Frown Left", "browInnerUp"]
    assert unit_names(spelt) == (
        "eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "jawLeft", "mouthSmileRight", "mouthFrownLeft", "browInnerUp",
    )  # fmt: skip


def test_own_names_stay_and_no_name_is_lost():
    assert unit_names(["smile", "expression_7", "cheekRaiser_L", "jawOpen", "JawOpen"]) == (
        "smile", "expression_7", "cheekRaiserLeft", "jawOpen", "JawOpen",
    )  # fmt: skip


def test_the_default_face_and_facewarehouse_know_the_posed_faces():
    own = load_source().expression_names
    assert unit_names(own) == own
    assert knows_posed_faces(own)
    units = unit_names(EXPRESSION_NAMES[1:])
    assert {"eyeBlinkLeft", "jawOpen", "browDownRight", "mouthSmileLeft", "noseSneerLeft", "eyeWideLeft"} <= {
        *units, *(f"{unit}Left" for unit in units)
    }  # fmt: skip
    assert knows_posed_faces(units)
    assert not knows_posed_faces(("anger", "disgust", "fear", "jawOpen"))


def test_mixtures_are_at_most_one_whole_expression(rng):
    drawn = [draw_mixture(6, rng) for _ in range(200)]
    assert all(float(weights.sum()) <= 1 + 1e-6 for weights in drawn)
    assert {int((weights > 0).sum()) for weights in drawn} == {0, 1, 2, 3}
