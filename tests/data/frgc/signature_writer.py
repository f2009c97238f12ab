"""Writes BEE signature sets, each presentation in a signature of its own."""

from xml.sax.saxutils import quoteattr


def write_signature_set(presentations, path):
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<biometric-signature-set>"]
    for one in presentations:
        data = "".join(f"<data file-name={quoteattr(name)}/>" for name in one.files)
        lines += [
            f"  <complex-biometric-signature name={quoteattr(one.subject)}>",
            f'    <complex-presentation name={quoteattr(one.name)} modality="3D face">',
            f"      <presentation-component>{data}</presentation-component>",
            "    </complex-presentation>",
            "  </complex-biometric-signature>",
        ]
    path.write_text("\n".join([*lines, "</biometric-signature-set>", ""]), encoding="utf-8", newline="\n")
    return path
