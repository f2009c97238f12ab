"""Batches that fail as a whole, with a stand-in for the device's decoder."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facerecon_torch.errors import ImageFileError
from facerecon_torch.images.device_decode import decode_batch, nvjpeg
from facerecon_torch.images.jpeg import decode_ordinary_jpeg
from facerecon_torch.images.read import decode_pixels
from tests.images.test_jpeg import jpeg, oriented, smooth


class StandIn:
    """Decodes on the CPU and refuses every list that holds one of `refused`; remembers what it was given."""

    def __init__(self, *refused: bytes) -> None:
        self.refused = refused
        self.calls: list[int] = []

    def __call__(self, contents: list[torch.Tensor]) -> list[torch.Tensor]:
        data = [bytes(content.numpy()) for content in contents]
        self.calls.append(len(data))
        if any(one in self.refused for one in data):
            raise RuntimeError("nvjpegDecode failed: 2")
        with_no_turn = [np.asarray(Image.open(BytesIO(one)).convert("RGB")) for one in data]
        return [torch.tensor(stored).permute(2, 0, 1) for stored in with_no_turn]


def files(*contents: bytes) -> list[tuple[Path, bytes]]:
    return [(Path(f"{k}.jpg"), data) for k, data in enumerate(contents)]


def test_one_list_where_all_is_well() -> None:
    contents = [jpeg(smooth(20 + k, 30), exif=oriented(k + 1)) for k in range(8)]
    decoder = StandIn()
    answers = decode_batch(files(*contents), decoder)
    assert decoder.calls == [8]
    assert all(torch.equal(answer, decode_ordinary_jpeg(data)) for answer, data in zip(answers, contents))


def test_a_refused_file_is_found_by_halving_and_decoded_on_the_cpu() -> None:
    contents = [jpeg(smooth(20 + k, 30)) for k in range(8)]
    decoder = StandIn(contents[5])
    answers = decode_batch(files(*contents), decoder)
    assert decoder.calls == [8, 4, 4, 2, 1, 1, 2]
    assert all(torch.equal(answer, decode_ordinary_jpeg(data)) for answer, data in zip(answers, contents))


def test_a_damaged_file_is_an_answer_of_its_own() -> None:
    good = jpeg(smooth(64, 64), quality=95)
    cut = good[: len(good) // 2]
    first, bad, text, last = decode_batch(files(good, cut, b"text", good), StandIn(cut))
    assert torch.equal(first, last)
    assert isinstance(bad, ImageFileError)
    assert str(bad).startswith("1.jpg: expected ")
    assert isinstance(text, ImageFileError)


def test_what_is_no_ordinary_baseline_jpeg_never_reaches_the_decoder() -> None:
    stream = BytesIO()
    smooth(20, 30).save(stream, "PNG")
    contents = [stream.getvalue(), jpeg(smooth(20, 30), progressive=True), jpeg(smooth(20, 30).convert("L"))]
    decoder = StandIn()
    answers = decode_batch(files(*contents), decoder)
    assert decoder.calls == []
    assert all(torch.equal(a, decode_pixels(data, Path("x"))) for a, data in zip(answers, contents))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_devices_decoder_is_within_rounding_of_the_cpus() -> None:
    device = torch.device("cuda")
    contents = [jpeg(smooth(200 + 8 * k, 240), quality=92, exif=oriented(k + 1)) for k in range(8)]
    for answer, data in zip(decode_batch(files(*contents), nvjpeg(device)), contents):
        assert answer.device.type == "cuda"
        gap = (answer.cpu().int() - decode_ordinary_jpeg(data).int()).abs()
        assert float(gap.float().mean()) < 1.0
