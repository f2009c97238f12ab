"""What importing and starting warp does to a fresh process."""

import os
import subprocess
import sys

import pytest

KERNELS = ("draw_triangles", "resolve_pixels_double", "resolve_pixels_single", "find_closest", "find_hits")
_LAZY = """
import sys
import facerecon_torch.geometry.mesh_queries, facerecon_torch.geometry.mesh_queries
print("warp" in sys.modules)
"""
_DRAW = """
import torch
from facerecon_torch.geometry.mesh_queries import get_backend
get_backend().rasterise(torch.eye(3), torch.tensor([[0, 1, 2]]), 2, 2)
"""
_WHERE = """
from facerecon_torch.geometry.mesh_queries import get_backend
get_backend()
import warp
print(warp.config.kernel_cache_dir)
"""
_COMPILE = """
import sys, warp
from facerecon_torch.geometry.mesh_queries import get_backend
get_backend()
from facerecon_torch.geometry import warp_kernels
warp.compile_aot_module(warp_kernels, arch=[80, 90, 100], module_dir=sys.argv[1], use_ptx=False)
"""


def _run(code, *arguments, unset=(), **env):
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env={**kept, **env})
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


def test_kernels_compile_for_gpus_that_are_not_there(tmp_path):
    """Warp's compiler needs no driver: machine code of all kernels for three generations of GPUs."""
    pytest.importorskip("warp")
    _run(_COMPILE, str(tmp_path))
    for architecture in ("sm80", "sm90", "sm100"):
        (built,) = tmp_path.glob(f"*.{architecture}.cubin")
        code = built.read_bytes()
        for kernel in KERNELS:
            assert f"{kernel}_".encode() in code
