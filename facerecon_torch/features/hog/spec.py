"""The definition of a HOG descriptor: its variant, its geometry in crop pixels and its evaluation."""

from dataclasses import dataclass

from facerecon_torch.checks import require_count

__all__ = ["HogSpec"]

_CHOICES = {"variant": ("uoctti", "dalal"), "vote": ("hard", "linear"), "evaluation": ("patch", "patch_halo", "dense")}
_HALF_TURN_BINS = 9


@dataclass(frozen=True, kw_only=True)
class HogSpec:
    """A square patch of `patch_px` around a landmark, cut into cells of `cell_px`; both in px of the crop.

    The patch at an integer position p holds the pixels from p - patch_px // 2 on, so that integer positions need no
    resampling. An even patch has no central pixel: its centre is p - 1/2, and the point x of an image of width W is
    at W - x in the mirrored image. An odd patch is centred on p.

    Raises:
        ValueError: an unknown choice, or a geometry that does not divide.

    Example:
        >>> HogSpec(cell_px=32).length
        124
    """

    variant: str = "uoctti"  # uoctti: 31 channels a cell; dalal: 2x2 blocks of 9 bins
    patch_px: int = 64
    cell_px: int = 16
    vote: str = "linear"  # hard: for one orientation; linear: shared between two
    colour: bool = True  # per pixel the channel of largest gradient; False: grey
    evaluation: str = "dense"  # patch: on its own; patch_halo: knows its surroundings; dense: from maps
    stride: int = 4  # px between the nodes of dense maps

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"HogSpec.{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
        for name in ("patch_px", "cell_px", "stride"):
            require_count(f"HogSpec.{name}", getattr(self, name), 1)
        if self.patch_px % self.cell_px:
            raise ValueError(f"HogSpec.patch_px must be a multiple of cell_px; got {self}")
        if self.cell_px % self.stride:
            raise ValueError(f"HogSpec.stride must divide cell_px; got {self}")
        if self.variant == "dalal" and self.cells < 2:
            raise ValueError(f"HogSpec needs 2 cells per side for the 2x2 blocks of dalal; got {self}")

    @property
    def cells(self) -> int:
        """The number of cells per side of the patch."""
        return self.patch_px // self.cell_px

    @property
    def halo(self) -> int:
        """The number of cells beyond the patch that the normalisation of its border cells reads."""
        return 1 if self.variant == "uoctti" else 0

    @property
    def bins(self) -> int:
        """The number of orientations of a cell histogram: 18 directed (uoctti) or 9 undirected (dalal)."""
        return 2 * _HALF_TURN_BINS if self.variant == "uoctti" else _HALF_TURN_BINS

    @property
    def length(self) -> int:
        """The length of the descriptor of a landmark: cells^2 x 31 (uoctti) or (cells - 1)^2 x 4 x 9 (dalal)."""
        if self.variant == "uoctti":
            return self.cells**2 * (3 * _HALF_TURN_BINS + 4)
        return (self.cells - 1) ** 2 * 4 * _HALF_TURN_BINS
