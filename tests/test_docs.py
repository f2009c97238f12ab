"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def test_every_equation_has_its_file_and_its_test():
    rows = [line for line in (ROOT / "docs" / "method.md").read_text().splitlines() if line.startswith("| ")]
    named = [path for row in rows for path in re.findall(r"`([\w/]+(?:\.py|/))`", row)]
    assert len(named) > 40
    missing = [p for p in named if not ((ROOT / p).exists() or (ROOT / "facerecon_torch" / p).exists())]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing
