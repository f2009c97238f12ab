"""A CUDA device that computes shapes instead of numbers, on which every wait for the device is seen.

Tensors on `cuda` are FakeTensors: they need no driver, and an operation that mixes them with tensors of the CPU raises.
Tensors on the CPU stay real. An operation that would make the host wait for the device (a copy to the CPU, `.item()`,
`bool()`, a shape that depends on values) raises `HiddenWait`, unless the function that asks for it is listed.
"""

import io
import pickle
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PACKAGE = Path(__file__).parents[1] / "facerecon_torch"
_SCALAR = torch.ops.aten._local_scalar_dense.default
_EQUAL = torch.ops.aten.equal.default
# Functions that ask the driver, and what takes their place: an empty card of 80 GB, copies without a stream.
_DRIVER = {
    "torch.cuda.mem_get_info": lambda *_: (80 * 10**9, 80 * 10**9),
    "torch.cuda.memory_reserved": lambda *_: 0,
    "torch.cuda.memory_allocated": lambda *_: 0,
    "facerecon_torch.regression.moments.to_device": lambda chunks, device: (chunk.to(device) for chunk in chunks),
}


class HiddenWait(AssertionError):
    """The host waited for the device where no wait is allowed."""


class FakeCuda(TorchDispatchMode):
    """Inside, device `cuda` is fake and waits are counted in `waits` by the function that causes them.

    Args:
        allowed: function ("fitting.crop:crop_faces") -> the values that the host receives there, one for each wait; of
            a copy a tensor, otherwise a number. The last one is repeated.
    """

    def __init__(self, allowed=None):
        super().__init__()
        self.allowed = {site: list(values) for site, values in (allowed or {}).items()}
        self.waits = Counter()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._driver = ExitStack()

    def __enter__(self):
        for name, replacement in _DRIVER.items():
            self._driver.enter_context(patch(name, replacement))
        self.mode.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.mode.__exit__(*error)
        self._driver.close()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        fakes = [leaf for leaf in leaves if isinstance(leaf, FakeTensor)]
        device = kwargs.get("device")
        to_cuda = device is not None and torch.device(device).type == "cuda"
        if not fakes and not to_cuda:
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        if function in (_SCALAR, _EQUAL) or self._copies_to_host(function, args, device):
            return self._wait(function)
        try:
            return function(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise HiddenWait(f"{_site()}: {function} depends on values of the device") from error

    @staticmethod
    def _copies_to_host(function, args, device):
        if function is torch.ops.aten.copy_.default:
            return not isinstance(args[0], FakeTensor)
        return device is not None and torch.device(device).type == "cpu"

    def _wait(self, function):
        site = _site()
        self.waits[site] += 1
        if site not in self.allowed:
            raise HiddenWait(f"{site} waits for the device in {function}")
        values = self.allowed[site]
        return values.pop(0) if len(values) > 1 else values[0]

    def put(self, record):
        """A copy of an object, however deep, whose tensors are on the fake device."""
        tensors = []
        written = io.BytesIO()
        _Pickler(written, tensors).dump(record)
        moved = [self.mode.from_tensor(tensor.detach()).to("cuda") for tensor in tensors]
        written.seek(0)
        unpickler = pickle.Unpickler(written)
        unpickler.persistent_load = moved.__getitem__
        return unpickler.load()


class _Pickler(pickle.Pickler):
    """Leaves tensors out of the bytes, and puts them into a list."""

    def __init__(self, file, tensors):
        super().__init__(file)
        self._tensors, self._places = tensors, {}

    def persistent_id(self, value):
        if not isinstance(value, torch.Tensor):
            return None
        if id(value) not in self._places:
            self._places[id(value)] = len(self._tensors)
            self._tensors.append(value)
        return self._places[id(value)]


def _site():
    """The innermost function of the package that is running, as "fitting.crop:crop_faces"."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            module = path.relative_to(_PACKAGE).with_suffix("").as_posix().replace("/", ".")
            return f"{module}:{frame.name}"
    return "outside the package"
