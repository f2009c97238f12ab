"""MediaPipe's face networks as torch modules: two face detectors and Face Mesh V2.

The layers and their order are those of the published graphs (docs/detectors.md); `commands/build_assets` converts the
weights. Convolutions with stride 2 pad as the graphs do: an even side is padded below and to the right alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["VALUES", "FaceMeshNetwork", "FullRangeNetwork", "ShortRangeNetwork"]

_MESH_WIDTHS = (32, 64, 128, 128, 128, 128)  # channels after each halving, from 64 x 64 to 2 x 2
_SHORT_WIDTHS = (24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88, 96, 96, 96, 96, 96)
_SHORT_HALVES = frozenset({2, 5, 11})  # blocks with stride 2
_SHORT_FINE = 11  # blocks before the first heads
_SHORT_ANCHORS = (2, 6)  # of a cell of the 16 x 16 and 8 x 8 grids
VALUES = 16  # of an anchor: box x, y, width, height and six points


class FaceMeshNetwork(nn.Module):
    """Face Mesh V2: 478 points of one face in a crop of 256 x 256 px.

    Example:
        >>> points, presence = FaceMeshNetwork()(torch.rand(1, 3, 256, 256))
    """

    size = 256
    points = 478

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.stem_activation = nn.PReLU(16)
        stages: list[nn.Module] = [_MeshBlock(16) for _ in range(4)]
        width = 16
        for wide in _MESH_WIDTHS:
            stages += [_MeshHalving(width, wide), *(_MeshBlock(wide) for _ in range(4))]
            width = wide
        self.stages = nn.Sequential(*stages)
        self.heads = nn.ModuleList([nn.Conv2d(width, count, 2) for count in (1, 1, 3 * self.points)])

    def forward(self, crops: Float[Tensor, "n 3 256 256"]) -> tuple[Float[Tensor, "n 478 3"], Float[Tensor, "n"]]:
        """The points (x, y, z) in px of the crops, z towards the back of the head, and the logits of a face's presence.

        Args:
            crops: upright faces, RGB in [0, 1].
        """
        x = self.stem_activation(self.stem(functional.pad(crops, (0, 1, 0, 1))))
        x = self.stages(x)
        _, presence, points = (_in_float32(head, x).flatten(1) for head in self.heads)
        return points.reshape(-1, self.points, 3), presence[:, 0]


class _MeshBlock(nn.Module):
    """A residual bottleneck: 1 x 1, depthwise 3 x 3, 1 x 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // 2
        self.reduce = nn.Conv2d(width, narrow, 1)
        self.reduce_activation = nn.PReLU(narrow)
        self.depthwise = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow)
        self.expand = nn.Conv2d(narrow, width, 1)
        self.activation = nn.PReLU(width)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        y: Tensor = self.expand(self.depthwise(self.reduce_activation(self.reduce(x))))
        activated: Tensor = self.activation(x + y)
        return activated


class _MeshHalving(nn.Module):
    """A bottleneck of half the resolution: 2 x 2 with stride 2, depthwise 3 x 3, 1 x 1, beside a maximum."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        narrow = wide // 2
        self.reduce = nn.Conv2d(width, narrow, 2, stride=2)
        self.reduce_activation = nn.PReLU(narrow)
        self.depthwise = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow)
        self.expand = nn.Conv2d(narrow, wide, 1)
        self.activation = nn.PReLU(wide)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        y = self.expand(self.depthwise(self.reduce_activation(self.reduce(x))))
        activated: Tensor = self.activation(_widened(functional.max_pool2d(x, 2), y.shape[1]) + y)
        return activated


class ShortRangeNetwork(nn.Module):
    """The short range face detector: faces that fill a good part of a picture of 128 x 128 px.

    Example:
        >>> values, logits = ShortRangeNetwork()(torch.rand(1, 3, 128, 128) * 2 - 1)
    """

    size = 128
    grids = ((16, 2), (8, 6))
    """(cells of a side, anchors of a cell)"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, stride=2)
        widths = zip((24, *_SHORT_WIDTHS), _SHORT_WIDTHS)
        self.blocks = nn.ModuleList([_ShortBlock(a, b, k in _SHORT_HALVES) for k, (a, b) in enumerate(widths)])
        self.heads = nn.ModuleList(
            [nn.Conv2d(width, count * n, 1) for n in (1, VALUES) for width, count in zip((88, 96), _SHORT_ANCHORS)]
        )

    def forward(self, x: Float[Tensor, "n 3 128 128"]) -> tuple[Float[Tensor, "n 896 16"], Float[Tensor, "n 896"]]:
        """The values of every anchor in px of the input, relative to its centre, and the logits of its faces.

        Args:
            x: pictures, RGB in [-1, 1].
        """
        x = functional.relu(self.stem(functional.pad(x, (1, 2, 1, 2))))
        fine = x
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k + 1 == _SHORT_FINE:
                fine = x
        logits = [_by_anchor(_in_float32(head, y), 1) for head, y in zip(self.heads[:2], (fine, x))]
        values = [_by_anchor(_in_float32(head, y), VALUES) for head, y in zip(self.heads[2:], (fine, x))]
        return torch.cat(values, 1), torch.cat(logits, 1)[..., 0]


class _ShortBlock(nn.Module):
    """Depthwise 3 x 3 and 1 x 1, beside the input or, with stride 2, its maximum."""

    def __init__(self, width: int, wide: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        padding, stride = (0, 2) if halves else (1, 1)
        self.depthwise = nn.Conv2d(width, width, 3, stride=stride, padding=padding, groups=width)
        self.expand = nn.Conv2d(width, wide, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        y = self.expand(self.depthwise(functional.pad(x, (0, 1, 0, 1)) if self.halves else x))
        return functional.relu(_widened(functional.max_pool2d(x, 2) if self.halves else x, y.shape[1]) + y)


class FullRangeNetwork(nn.Module):
    """The full range face detector: also small faces, in a picture of 192 x 192 px.

    Example:
        >>> values, logits = FullRangeNetwork()(torch.rand(1, 3, 192, 192) * 2 - 1)
    """

    size = 192
    grids = ((48, 1),)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.first = nn.Sequential(_FullBlock(32, 8), _FullBlock(32, 8))
        self.down = nn.ModuleList(
            [
                _FullLevel(nn.Sequential(_FullHalving(32, 16, 64), *_full_blocks(2, 64, 16)), 64, 48),
                _FullLevel(nn.Sequential(_FullHalving(64, 32, 128), *_full_blocks(2, 128, 32)), 128, 64),
                _FullLevel(nn.Sequential(_FullHalving(128, 48, 192), *_full_blocks(2, 192, 48)), 192, 96),
                _FullLevel(nn.Sequential(_FullHalving(192, 96, 384), *_full_blocks(3, 384, 96)), 384, 96),
            ]
        )
        self.up = nn.ModuleList(
            [
                nn.Sequential(*_full_blocks(2, 96, 48), nn.Conv2d(96, 64, 1), nn.ReLU()),
                nn.Sequential(*_full_blocks(2, 64, 32), nn.Conv2d(64, 48, 1), nn.ReLU()),
                nn.Sequential(*_full_blocks(1, 48, 24)),
            ]
        )
        self.heads = nn.ModuleList([_FullHead(48, count) for count in (1, VALUES)])

    def forward(self, x: Float[Tensor, "n 3 192 192"]) -> tuple[Float[Tensor, "n 2304 16"], Float[Tensor, "n 2304"]]:
        """The values of every anchor in px of the input, relative to its centre, and the logits of its faces.

        Args:
            x: pictures, RGB in [-1, 1].
        """
        x = self.first(functional.relu(self.stem(x)))
        sides = []
        for level in self.down:
            x, side = level(x)
            sides.append(side)
        x = sides.pop()
        for blocks in self.up:
            x = blocks(sides.pop() + functional.interpolate(x, scale_factor=2, mode="bilinear"))
        logits, values = (head(x) for head in self.heads)
        return values, logits[..., 0]


class _FullPair(nn.Module):
    """Depthwise 3 x 3 and 1 x 1, twice, with a narrow middle."""

    def __init__(self, width: int, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width)
        self.reduce = nn.Conv2d(width, narrow, 1)
        self.narrow_depthwise = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow)
        self.expand = nn.Conv2d(narrow, wide, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        reduced = functional.relu(self.reduce(self.depthwise(x)))
        expanded: Tensor = self.expand(self.narrow_depthwise(reduced))
        return expanded


class _FullBlock(_FullPair):
    """A residual pair."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__(width, narrow, width, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return functional.relu(x + super().forward(x))


class _FullHalving(_FullPair):
    """A pair of half the resolution."""

    def __init__(self, width: int, narrow: int, wide: int) -> None:
        super().__init__(width, narrow, wide, 2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        return functional.relu(super().forward(x))


class _FullLevel(nn.Module):
    """The blocks of a resolution, and what goes from there to the way up."""

    def __init__(self, blocks: nn.Module, width: int, side: int) -> None:
        super().__init__()
        self.blocks, self.side = blocks, nn.Conv2d(width, side, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d h2 w2"], Float[Tensor, "n e h2 w2"]]:
        x = self.blocks(x)
        return x, functional.relu(self.side(x))


def _full_blocks(count: int, width: int, narrow: int) -> list[nn.Module]:
    return [_FullBlock(width, narrow) for _ in range(count)]


class _FullHead(nn.Module):
    """`count` values of each cell: made for blocks of 2 x 2 cells at half the resolution, then spread over them."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, 4 * count, 1)
        self.depthwise = nn.Conv2d(4 * count, 4 * count, 3, stride=2, padding=1, groups=4 * count)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n cells values"]:
        y = _in_float32(self.depthwise, _in_float32(self.mix, x))
        n, channels, h, w = y.shape
        blocks = y.reshape(n, 2, 2, channels // 4, h, w)  # rows and columns of a block, values
        return blocks.permute(0, 4, 1, 5, 2, 3).reshape(n, 4 * h * w, channels // 4)


def _in_float32(layer: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
    """A last layer in float32 at least: float16 has steps of 0.125 px at its values."""
    if not isinstance(layer, nn.Conv2d) or layer.bias is None:
        raise TypeError(f"expected a convolution with bias; got {layer}")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
    return functional.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)


def _widened(x: Float[Tensor, "n c h w"], width: int) -> Float[Tensor, "n d h w"]:
    """The channels of `x`, then zeros."""
    return functional.pad(x, (0, 0, 0, 0, 0, width - x.shape[1]))


def _by_anchor(x: Float[Tensor, "n c h w"], values: int) -> Float[Tensor, "n anchors values"]:
    """The anchors of a grid, row by row, with their values."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
