"""Photographs on their way into a training: files that cannot be read are left out, the others are as without them."""

import logging
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.commands.train import detections
from facerecon_torch.commands.train import samples as samples_module
from facerecon_torch.commands.train.detections import detect_set
from facerecon_torch.commands.train.samples import prepare_samples
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.face_set import FaceSet
from facerecon_torch.errors import DataFileError
from facerecon_torch.images import loader, save_png
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.runtime.memory import CacheLocation
from facerecon_torch.runtime.ranks import SINGLE
from tests.tiny_world import draw_faces

DAMAGED = {1: b"no image", 3: b""}


@pytest.fixture
def photo_set(tiny_setup, photographs, tmp_path, generator):
    images, landmarks = photographs
    files = [save_png(image, tmp_path / f"{k}.png") for k, image in enumerate(images)]
    parameters = draw_faces(tiny_setup, len(images), 1, generator)
    return FaceSet(
        name="photographs",
        images=tuple(files),
        subjects=torch.arange(len(images)),
        landmarks=landmarks,
        meshes=tiny_setup.model.vertices(parameters.identity, parameters.expression),
        parameters=parameters,
    )


def prepare(setup, faces):
    location = CacheLocation(torch.device("cpu"))
    spec = {"fit": setup.spec.fit, "crop": setup.spec.crop, "hog": setup.spec.features.hog}
    return prepare_samples(faces, setup.model, **spec, location=location, progress=False)


@pytest.mark.parametrize("threads", [2, 5])
def test_batches_side_by_side_give_the_bits_of_one_after_the_other(tiny_setup, photo_set, threads, monkeypatch):
    monkeypatch.setattr(samples_module, "_BATCH", 1)
    made, before = [], torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        try:
            made.append(prepare(tiny_setup, photo_set))
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(before)
    alone, together = made
    assert len(together) == len(photo_set)
    assert torch.equal(alone.places, together.places)
    assert torch.equal(alone.landmarks, together.landmarks)
    assert torch.equal(alone.table, together.table)


def test_unreadable_photographs_are_left_out_of_a_training(tiny_setup, photo_set, caplog):
    rows = torch.tensor([k for k in range(len(photo_set)) if k not in DAMAGED])
    without = prepare(tiny_setup, photo_set[rows])  # the same batches, so the same bits on any processor
    for k, content in DAMAGED.items():
        photo_set.images[k].write_bytes(content)
    with caplog.at_level(logging.ERROR):
        samples = prepare(tiny_setup, photo_set)
    assert samples.places.tolist() == rows.tolist()
    assert samples.subjects.tolist() == rows.tolist()
    assert torch.equal(samples.landmarks, without.landmarks)
    assert torch.equal(samples.parameters.flat, without.parameters.flat)
    assert torch.equal(samples.table[samples.rows], without.table)
    assert [k for k in DAMAGED if f"{k}.png" in caplog.text] == list(DAMAGED)


def test_a_set_without_one_readable_photograph_is_refused(tiny_setup, photo_set):
    for file in photo_set.images:
        file.write_bytes(b"no image")
    with pytest.raises(DataFileError, match=f"none of {len(photo_set)} can"):
        prepare(tiny_setup, photo_set)


def test_decoding_ahead_is_bounded_by_bytes(tiny_setup, photo_set, monkeypatch):
    expected = prepare(tiny_setup, photo_set)
    decoded, most = [], []

    def watched(data, path, **options):
        decoded.append(path)
        return decode(data, path, **options)

    def cropped(images, *others, **solvers):
        most.append(len(decoded))
        return crop(images, *others, **solvers)

    decode, crop = loader.decode_pixels, samples_module.canonical_crops
    monkeypatch.setattr(loader, "decode_pixels", watched)
    monkeypatch.setattr(samples_module, "canonical_crops", cropped)
    monkeypatch.setattr(samples_module, "_BATCH", 1)
    # no picture beside those in use and one that waits for a lane
    monkeypatch.setattr(samples_module, "decoded_ahead", partial(loader.decoded_ahead, memory=1))
    samples = prepare(tiny_setup, photo_set)
    assert_close(samples.landmarks, expected.landmarks)
    at_once = torch.get_num_threads()
    assert all(count <= k + 2 + at_once for k, count in enumerate(most)), most


def test_unreadable_photographs_have_no_landmarks(photo_set, monkeypatch, caplog):
    photo_set.images[1].write_bytes(b"no image")
    monkeypatch.setattr(detections, "build_detector", lambda name, **options: Nobody())
    source, runtime = LandmarkSourceSpec(source="dlib"), RuntimeSpec(device="cpu", progress=False)
    points = detect_set(photo_set.images, source, runtime, SINGLE)
    assert points.shape == (len(photo_set), 66, 2)
    assert points.isnan().all()
    assert Nobody.images == len(photo_set) - 1
    assert "1.png" in caplog.text


class Nobody:
    """A detector that finds no face."""

    name, licence, convention, images = "nobody", "none", "mediapipe", 0

    def detect(self, images, *, paths=None):
        Nobody.images += len(images)
        return [[] for _ in images]
