"""Figures of named expressions on weights that are told."""

import pytest
import torch

from benchmarks.accuracy.expression import main, measure


def test_figures_of_known_weights():
    truth = torch.tensor([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [0.0, 1.0, 0.3]])
    weights = torch.tensor([[0.2, 0.1, 0.0], [0.7, 0.05, 0.3], [0.0, 0.5, 0.3]])
    figures = measure(weights, truth)
    assert (figures["faces"], figures["at_rest"], figures["peaks"]) == (3, 1, 2)
    assert figures["rest_largest"] == pytest.approx(0.2)
    assert figures["rest_sum"] == pytest.approx(0.3)
    assert figures["recovered"] == 0.5
    assert figures["peak_error"] == pytest.approx(0.125)  # torch's median is the lower of two
    assert figures["spurious"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("words", "message"), [([], "got neither"), (["detector=dlib"], "keys must be .*; got detector")]
)
def test_wrong_keys_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        main(words)
