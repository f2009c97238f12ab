"""The reader of MediaPipe's canonical mesh: fields of a made-up message, and the refusal of other bytes."""

import hashlib
import io
import struct
import zipfile

import numpy as np
import pytest
import torch

from facerecon_torch.commands.build_assets import default_face_registration as registration
from facerecon_torch.commands.build_assets.default_face_registration import read_canonical_mesh, read_fields
from facerecon_torch.errors import ModelFileError


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def real(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def block(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def wheel_of(message: bytes, path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(registration.MEMBER, message)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(registration.ARCHIVE, inner.getvalue())
    return path


def test_fields_of_all_kinds_are_read_in_their_order():
    long = bytes(range(200))
    message = integer(1, 5) + real(20, -1.5) + block(3, long) + integer(1, 300) + integer(4, 2**40) + real(20, 0.25)
    assert read_fields(message) == {1: [5, 300], 20: [-1.5, 0.25], 3: [long], 4: [2**40]}
    assert read_fields(b"") == {}


@pytest.mark.parametrize("kind", [1, 3, 4, 6, 7])
def test_other_kinds_of_fields_are_refused(kind):
    with pytest.raises(ModelFileError, match=rf"wire type 0, 2 or 5; got {kind}"):
        read_fields(varint(2 << 3 | kind) + bytes(8))


def test_a_made_up_mesh_is_read_in_millimetres(tmp_path, monkeypatch, rng):
    rows = torch.randn(registration.N_VERTICES, 5, generator=rng)
    corners = [0, 1, 2, 2, 1, 467]
    mesh = b"".join(real(3, x) for x in rows.flatten().tolist()) + b"".join(integer(4, k) for k in corners)
    message = block(1, mesh) + integer(2, 1)
    monkeypatch.setattr(registration, "SHA256", hashlib.sha256(message).hexdigest())
    read = read_canonical_mesh(wheel_of(message, tmp_path / "a.whl"))
    assert np.array_equal(read.vertices, 10 * rows[:, :3].double())
    assert read.triangles.tolist() == [[0, 1, 2], [2, 1, 467]]


def test_other_bytes_are_refused(tmp_path):
    path = wheel_of(block(1, b""), tmp_path / "other.whl")
    with pytest.raises(ModelFileError, match=r"other\.whl.* must have SHA-256 bdbc.*; got [0-9a-f]{64}"):
        read_canonical_mesh(path)
