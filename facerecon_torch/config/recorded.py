"""Specs from a config and the config.yaml of a run from its specs: what ran, with every default spelt out."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from facerecon_torch.config.targets import require_type, spec_target
from facerecon_torch.files import replacing

__all__ = ["RECORDED_DEFAULTS", "build", "recorded", "write_config"]

RECORDED_DEFAULTS = ["run_folder", "_self_"]
"""The defaults list of a recorded training run: its run folder is made anew."""


def build(config: DictConfig, key: str = "") -> Any:
    """The object that a config describes: every mapping with a `_target_` is the call of that class or function.

    Lists become tuples. Unlike `hydra.utils.instantiate`, it resolves a value once, so that `${` in a path stays, calls
    specs of this package alone, and does not wrap errors.

    Args:
        config: a mapping.
        key: where it stands in the whole config; begins the names in errors.

    Raises:
        ValueError: a `_target_` is no spec, lacks a value or does not take one, a value has another type than the spec
            says; or what the spec raises.
    """
    return _build(OmegaConf.to_container(config, resolve=True), key)


def _build(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return tuple(_build(entry, key) for entry in value)
    if not isinstance(value, dict):
        return value
    inner = {name: f"{key}.{name}" if key else str(name) for name in value}
    built = {name: _build(entry, inner[name]) for name, entry in value.items() if name != "_target_"}
    if "_target_" not in value:
        return built
    target = spec_target(value["_target_"])
    try:
        inspect.signature(target).bind(**built)
    except TypeError as error:
        raise ValueError(f"{key or target.__name__}: {error}") from None
    hints = get_type_hints(target if inspect.isfunction(target) else target.__init__)
    for name, entry in built.items():
        require_type(inner[name], entry, hints.get(name, Any))
    return target(**built)


def recorded(value: Any) -> Any:
    """`value` as plain values of YAML; a dataclass becomes a mapping whose `_target_` builds it again.

    Raises:
        TypeError: a field holds something that a config cannot hold.

    Example:
        >>> recorded(ModelSpec())
        {'_target_': 'facerecon_torch.model.load.ModelSpec', 'path': None}
    """
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        own = {field.name: recorded(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **own}
    if isinstance(value, str):
        return value.replace("${", "\\${")  # a path may hold it; it is no reference
    if isinstance(value, Mapping):
        return {str(name): recorded(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        return [recorded(entry) for entry in value]
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
