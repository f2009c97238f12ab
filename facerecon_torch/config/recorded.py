"""The config.yaml of a run, written from its specs: what ran, with every default spelt out."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from facerecon_torch.files import replacing

__all__ = ["recorded", "write_config"]


def recorded(value: Any) -> Any:
    """`value` as plain values of YAML; a dataclass becomes a mapping whose `_target_` builds it again.

    Raises:
        TypeError: a field holds something that a config cannot hold.
    """
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        own = {field.name: recorded(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **own}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [recorded(entry) for entry in value]
    if isinstance(value, str):
        return value.replace("${", "\\${")  # a path may hold it; it is no reference
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"a config holds text, numbers, lists and specs; got {type(value).__name__}")


def write_config(path: Path, specs: Any, command: str, *, head: Mapping[str, Any]) -> None:
    """Write the specs of a run so that `facerecon COMMAND config=PATH` runs it again.

    Args:
        path: of the YAML file.
        specs: a dataclass with one field per config group.
        command: its name on the command line.
        head: what stands before the groups: the defaults list, or keys to be given anew.
    """
    groups = {name: group for name, group in recorded(specs).items() if name != "_target_"}
    with replacing(path) as aside:
        text = OmegaConf.to_yaml(OmegaConf.create({**head, **groups}))
        aside.write_text(f"# facerecon {command} config={path.name} runs this again.\n{text}", encoding="utf-8")
