"""report.html: one page with all tables and figures, which opens from disk and loads nothing (extra `report`)."""

import base64
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facerecon_torch.errors import MissingExtraError
from facerecon_torch.evaluation.tables import Section
from facerecon_torch.files import write_bytes

__all__ = ["write_page"]


def write_page(path: Path, title: str, facts: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """Write the page of an evaluation.

    Args:
        path: of the HTML file.
        title: of the page.
        facts: of the run, as pairs of words at the top.
        sections: in their order.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment
    except ImportError:
        raise MissingExtraError("report pages", "jinja2", "report") from None
    source = importlib.resources.files("facerecon_torch.evaluation") / "page.html.j2"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    text = template.render(title=title, facts=facts, sections=sections)
    write_bytes(path, text.encode("utf-8"))
