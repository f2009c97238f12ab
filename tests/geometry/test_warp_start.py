"""What importing and starting warp does to a fresh process."""

import os
import subprocess
import sys

_LAZY = """
import sys
import facerecon_torch.geometry.mesh_ops, facerecon_torch.geometry.visibility
print("warp" in sys.modules)
"""
_DRAW = """
import torch
from facerecon_torch.geometry.mesh_ops import get_backend
get_backend().rasterise(torch.eye(3), torch.tensor([[0, 1, 2]]), 2, 2)
"""
_WHERE = """
from facerecon_torch.geometry.mesh_ops import get_backend
get_backend()
import warp
print(warp.config.kernel_cache_dir)
"""


def _run(code, unset=(), **env):
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**kept, **env})
    assert done.returncode == 0, done.stderr
    return done


def test_the_interface_does_not_import_warp():
    assert _run(_LAZY).stdout.strip() == "False"


def test_warp_says_nothing_on_either_stream():
    done = _run(_DRAW)
    assert done.stdout == ""
    assert done.stderr == ""


def test_compiled_kernels_go_to_the_product_cache_unless_warp_is_told_otherwise(tmp_path):
    product, own = str(tmp_path / "product"), str(tmp_path / "own")
    chosen = _run(_WHERE, unset=["WARP_CACHE_PATH"], FACERECON_CACHE=product).stdout
    assert chosen.startswith(os.path.join(product, "warp"))
    assert _run(_WHERE, FACERECON_CACHE=product, WARP_CACHE_PATH=own).stdout.startswith(own)
