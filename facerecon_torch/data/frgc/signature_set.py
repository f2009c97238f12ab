"""BEE signature sets (.xml): the files of each FRGC recording.

    <biometric-signature-set>
      <complex-biometric-signature name="nd1S02463">
        <complex-presentation name="nd1R02463" modality="3D face">
          <presentation-component> <data file-name="nd1/Spring2003range/02463d452.abs.gz" .../> ...

A plain <biometric-signature> holds <presentation file-name="..."/> instead. Namespaces are ignored, and file names may
have either kind of slash. The files are read as a stream, without entities and with bounds on size, depth, number of
elements and length of names, so that a malicious file cannot fill the memory.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from facerecon_torch.errors import DataFileError
from facerecon_torch.formats.format_errors import format_error, reading, require_data_file, require_size, shown

__all__ = ["Presentation", "read_signature_set"]

_LARGEST = 1 << 26
_MOST_ELEMENTS = 1_000_000
_DEEPEST = 16
_LONGEST_NAME = 1024
_CHUNK = 1 << 16
_ROOT = "biometric-signature-set"
_SIGNATURES = ("biometric-signature", "complex-biometric-signature")
_PRESENTATIONS = ("presentation", "complex-presentation")


@dataclass(frozen=True)
class Presentation:
    """One recording of a set: the names of subject and recording, and its files in order, with `/` between folders."""

    subject: str
    name: str
    files: tuple[str, ...]


def read_signature_set(path: str | os.PathLike[str]) -> list[Presentation]:
    """The presentations of a .xml signature set, in order.

    Raises:
        DataFileError: The text is no such XML (cut off, another root, a DOCTYPE), a presentation is outside of a
            signature or has no printable file name, or the file has more than 64 MiB or a million elements.
    """
    file = require_data_file(path, (".xml",))
    require_size(file, least=0, limit=_LARGEST)
    parser = expat.ParserCreate(namespace_separator=" ")
    state = _State(file)
    parser.StartElementHandler, parser.EndElementHandler = state.open, state.close
    parser.StartDoctypeDeclHandler = state.refuse_doctype
    with reading(file), open(file, "rb") as stream:
        try:
            while chunk := stream.read(_CHUNK):
                parser.Parse(chunk, False)
            parser.Parse(b"", True)
        except DataFileError:
            raise
        except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: unknown encodings
            raise format_error(file, "text", "well-formed XML", error) from error
    return state.found


@dataclass
class _State:
    """The state of the parser and the presentations so far."""

    file: Path
    found: list[Presentation] = field(default_factory=list)
    depth: int = 0
    elements: int = 0
    subject: str | None = None
    name: str | None = None
    files: list[str] = field(default_factory=list)

    def refuse_doctype(self, *_: object) -> None:
        raise format_error(self.file, "text", "XML without a document type", "a DOCTYPE")

    def open(self, tag: str, attributes: dict[str, str]) -> None:
        kind = tag.rpartition(" ")[2]
        self.depth += 1
        self.elements += 1
        if self.depth > _DEEPEST or self.elements > _MOST_ELEMENTS:
            limit = f"at most {_DEEPEST} elements inside each other and {_MOST_ELEMENTS} in all"
            raise format_error(self.file, "elements", limit, "more")
        if self.depth == 1 and kind != _ROOT:
            raise format_error(self.file, "root", f"<{_ROOT}>", shown(kind))
        if kind in _SIGNATURES:
            self.subject = self._attribute(kind, attributes, "name")
        elif kind in _PRESENTATIONS:
            if self.subject is None or self.name is not None:
                raise format_error(self.file, kind, "one inside of a signature", "one outside, or inside another")
            self.name, self.files = self._attribute(kind, attributes, "name"), []
        if "file-name" in attributes and self.name is not None:
            self.files.append(self._attribute(kind, attributes, "file-name").replace("\\", "/"))

    def close(self, tag: str) -> None:
        kind = tag.rpartition(" ")[2]
        self.depth -= 1
        if kind in _PRESENTATIONS and self.subject is not None and self.name is not None:
            if not self.files:
                raise format_error(self.file, f"presentation {shown(self.name)}", "a file-name", "none")
            self.found.append(Presentation(self.subject, self.name, tuple(self.files)))
            self.name = None
        elif kind in _SIGNATURES:
            self.subject = None

    def _attribute(self, kind: str, attributes: dict[str, str], key: str) -> str:
        value = attributes.get(key, "")
        if not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
            raise format_error(
                self.file, f"{key} of {kind}", f"1 to {_LONGEST_NAME} printable characters", shown(value)
            )
        return value
