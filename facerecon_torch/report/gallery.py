"""gallery.html: a page of thumbnails with filters, which opens from disk and loads nothing (extra `report`)."""

import base64
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facerecon_torch.errors import MissingExtraError
from facerecon_torch.files import write_bytes

__all__ = ["GalleryCard", "write_gallery"]


@dataclass(frozen=True, kw_only=True)
class GalleryCard:
    """One face, or one input without faces.

    Attributes:
        title: of the card.
        status: `ok`, or why there is no face.
        trusted: whether the face is; None without a face.
        notes: lines of text, such as the reasons of a doubt.
        error: predicted error in mm; None without a face.
        thumbnail: a JPEG file; None where there is none.
        links: addresses of files relative to the page, by name.
    """

    title: str
    status: str
    trusted: bool | None
    notes: Sequence[str]
    error: float | None
    thumbnail: bytes | None
    links: Mapping[str, str] = field(default_factory=dict)


def write_gallery(path: Path, title: str, facts: Mapping[str, str], cards: Sequence[GalleryCard]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: of the page.
        facts: of the run, at the top.
        cards: in their order.

    Raises:
        MissingExtraError: jinja2 is not installed.

    Example:
        write_gallery(Path("out/gallery.html"), "out", {"faces": "72"}, cards)
    """
    try:
        from jinja2 import Environment
    except ImportError:
        raise MissingExtraError("gallery pages", "jinja2", "report") from None
    source = importlib.resources.files("facerecon_torch.report") / "gallery.html.j2"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = lambda jpeg: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    statuses = sorted({card.status for card in cards}, key=lambda status: (status != "ok", status))
    text = template.render(title=title, facts=facts, cards=cards, statuses=statuses)
    write_bytes(path, text.encode("utf-8", errors="replace"))
