"""The rounding of a processor that nobody has: `python -m pytest -p tests.other_rounding [files]`.

Processors, numbers of threads and batch sizes differ in the order of sums, hence in last bits. Under this
plugin every sum, product and factorisation on the CPU moves by no more than its own rounding, by numbers that the
operation with the shapes and strides of its operands decides: the same call gives the same bits, another batch size
gives others. A test that fails here holds by the luck of some kernels. Child processes, NumPy and warp are not reached.
"""

import math
import os
import threading
import zlib

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_SEED = int(os.environ.get("ROUNDING_SEED", "0"))
_TABLE = 2 * torch.rand(1 << 21, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64) - 1
_aten = torch.ops.aten
# where the factors stand, and what multiplies them
_PRODUCTS = {
    _aten.mm: (0, _aten.mm.default), _aten.bmm: (0, _aten.bmm.default), _aten.mv: (0, _aten.mv.default),
    _aten.dot: (0, _aten.dot.default), _aten.addmm: (1, _aten.mm.default), _aten.addmm_: (1, _aten.mm.default),
    _aten.baddbmm: (1, _aten.bmm.default), _aten.baddbmm_: (1, _aten.bmm.default), _aten.addmv: (1, _aten.mv.default),
    _aten.addmv_: (1, _aten.mv.default),
}  # fmt: skip
_SUMS = {_aten.sum, _aten.mean}
_RESULTS = {_aten.cumsum, _aten.var, _aten.convolution, _aten._cdist_forward, _aten.linalg_solve_triangular}
_FACTORISATIONS = {
    _aten.linalg_cholesky_ex, _aten._linalg_eigh, _aten._linalg_svd, _aten.linalg_qr, _aten._linalg_solve_ex,
    _aten.linalg_inv_ex, _aten.linalg_lstsq, _aten._linalg_det,
}  # fmt: skip


class OtherRounding(TorchDispatchMode):
    """Other last bits in the thread that enters it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in _FACTORISATIONS and _floats_here(args[0]):
            return func(args[0] + _noise(packet, args, args[0].abs()), *args[1:], **kwargs)
        bound = _bound(func, args, kwargs)
        out = func(*args, **kwargs)
        if packet in _RESULTS and _floats_here(out):
            bound = out.abs()
        return out if bound is None else out.add_(_noise(packet, args, bound).to(out.dtype))


def _floats_here(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.device.type == "cpu"


def _bound(func, args, kwargs) -> Tensor | None:
    """sum |a b| for sum a b. None for other operations, and where every order gives the same: two terms, and whole
    numbers that are held exactly."""
    packet = func.overloadpacket
    if packet in _PRODUCTS:
        first, multiply = _PRODUCTS[packet]
        terms = args[first : first + 2]
    elif packet in _SUMS:
        terms = args[:1]
    else:
        return None
    if not all(map(_floats_here, terms)):
        return None
    sizes = [term.detach().abs() for term in terms]
    if packet in _PRODUCTS:
        bound = multiply(*sizes)
    else:
        bound = func(*sizes, *args[1:], **{name: value for name, value in kwargs.items() if name != "out"})
        if sizes[0].numel() <= 2 * bound.numel():
            return None
    whole = all(bool((size == size.round()).all()) for size in sizes)
    return None if whole and bool((bound < 1 / torch.finfo(bound.dtype).eps).all()) else bound


def _noise(packet, args, bound: Tensor) -> Tensor:
    """Up to one unit in the last place of `bound` either way."""
    told = [(tuple(arg.shape), arg.stride()) for arg in args if isinstance(arg, Tensor)]
    start = zlib.crc32(f"{packet}{told}".encode()) % (len(_TABLE) // 2)
    table = _TABLE[start:]
    if bound.numel() > len(table):
        table = table.repeat(math.ceil(bound.numel() / len(table)))
    return bound * table[: bound.numel()].view(bound.shape).to(bound.dtype) * torch.finfo(bound.dtype).eps


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with OtherRounding():
        return (yield)


def pytest_configure(config):
    run = threading.Thread.run

    def run_rounded(self):
        with OtherRounding():
            run(self)

    threading.Thread.run = run_rounded
