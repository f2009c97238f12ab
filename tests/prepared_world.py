"""A prepared set of the tiny world on disk."""

from collections.abc import Sequence
from pathlib import Path

import torch

from facerecon_torch.data.prepared import CROPS, save_prepared
from facerecon_torch.images.write import save_png
from facerecon_torch.runtime.sharded_job import Shard
from tests.tiny_world import blobs, make_samples, make_setup


def write_prepared(folder: Path, people: int, kinds: Sequence[str], *, seed: int = 7, missing: int = 1):
    """(setup, samples) of a set in which every person has one photograph of each kind, as in E_HAPPY.

    The last `missing` samples have no landmarks; the first has the flag `folded`.
    """
    setup, images = make_setup(), len(kinds)
    samples, n = make_samples(setup, people=people, images=images, seed=seed), people * images
    faces = samples.parameters
    (folder / CROPS).mkdir(parents=True)
    names = [f"bs{k // images:03d}_{kinds[k % images]}_0" for k in range(n)]
    for name, picture in zip(names, blobs(samples.landmarks, faces.identity[:, 0], setup.model)):
        save_png(picture, folder / CROPS / f"{name}.png")
    landmarks = samples.landmarks.clone()
    landmarks[n - missing :] = torch.nan
    tables = {
        "identity": faces.identity,
        "expression": faces.expression,
        "rotation": torch.eye(3).repeat(n, 1, 1),
        "translation": torch.zeros(n, 3),
        "meshes": samples.meshes,
        "covered": torch.arange(samples.meshes.shape[1]).expand(n, -1) % 4 > 0,
        "landmarks": landmarks,
    }
    entries = [
        {
            "name": name,
            "subject": name[:5],
            "kind": kinds[k % images].partition("_")[0],
            "code": kinds[k % images].partition("_")[2],
            "image": f"{name}.png",
            "flags": ["folded"] if k == 0 else [],
        }
        for k, name in enumerate(names)
    ]
    shard = Shard(tables | {"measure.scan_to_mesh": torch.zeros(n)}, {"samples": entries, "failures": {}})
    save_prepared(folder, [shard], model_sha256=setup.model.sha256, spec={})
    return setup, samples
