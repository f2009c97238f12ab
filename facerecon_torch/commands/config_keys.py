"""The keys and groups of a command's configuration: its help, and one-line answers to calls that name none of them."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from facerecon_torch.commands.suggest import did_you_mean
from facerecon_torch.config.targets import spec_target

__all__ = ["checked", "command_help", "config_folder", "search_path"]

_WIDTH = 120  # of the lines of help


def config_folder() -> Path:
    """The configs inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"the config folder is missing; looked for train.yaml in {package / 'configs'}")


def _groups(file: Path) -> dict[str, Any]:
    """The groups that a config chooses from, each with its default option, or a list of them."""
    defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
    return {name: option for entry in defaults if isinstance(entry, dict) for name, option in entry.items()}


def _options(group: str, command: str) -> list[str]:
    """The options of a group, as in `data` or `data@test_data`; of experiments those of the command."""
    folder = config_folder() / group.partition("@")[0]
    files = [path for path in folder.glob("[!_]*.yaml") if group != "experiment" or _is_for(path, command)]
    return sorted(path.stem for path in files)


def _is_for(experiment: Path, command: str) -> bool:
    """Whether an experiment belongs to a command: those of evaluate say which study they are."""
    content = yaml.safe_load(experiment.read_text(encoding="utf-8")) or {}
    return ("evaluation" in content) == (command == "evaluate")


def command_help(name: str) -> str:
    """The help of a command: purpose, examples, its own keys and its groups, from the text of its config files."""
    file = config_folder() / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    head = [line[2:] for line in text.splitlines()[: text[: text.index("defaults:")].count("\n")]]
    examples = [line for line in head if line.startswith(f"facerecon {name}")]
    about = "\n".join(line for line in head if line not in examples).strip()
    lines = [f"facerecon {name} [group=option ...] [key=value ...]", "", about, "", "Examples:"]
    lines += [f"  {line}" for line in examples]
    own = _body(file)
    lines += ["", "Keys (??? must be given):", *(f"  {line}" for line in own)] if own else []
    lines += ["", "Groups (GROUP=OPTION) with the keys of their default options (GROUP.KEY=VALUE):"]
    for group, default in _groups(file).items():
        several = isinstance(default, list)
        shown = f"[{','.join(default)}]" if several else default or "none"
        choice = f"  {group}: {' | '.join(_options(group, name))} (default: {shown})"
        lines += textwrap.wrap(choice, _WIDTH, subsequent_indent=" " * (len(group) + 4))
        if default is not None and not several:
            lines += [f"    {line}" for line in _body(config_folder() / group / f"{default}.yaml")]
    return "\n".join(lines) + "\n"


def _body(file: Path) -> list[str]:
    """The lines of a config that set keys, after those of the configs that it extends."""
    text = file.read_text(encoding="utf-8")
    bases = [entry for entry in (yaml.safe_load(text) or {}).get("defaults", []) if isinstance(entry, str)]
    lines = [line for base in bases if base != "_self_" for line in _body(file.with_name(f"{base}.yaml"))]
    text = re.sub(r"^(defaults|hydra):.*\n(?: .*\n|\n)*", "", text + "\n", flags=re.MULTILINE)
    return lines + [line for line in text.splitlines() if line and line[0] != "#" and "_target_:" not in line]


def checked(name: str, arguments: Sequence[str], recorded: Path | None = None) -> list[str]:
    """The arguments of a call whose groups, options and keys exist and that gives all that must be given.

    A key that the config leaves out and its spec has gets the `+` with which Hydra adds it. Of Hydra's flags only -m
    is taken.

    Args:
        name: of the command.
        arguments: those of Hydra, paths quoted.
        recorded: a recorded config.yaml that stands in for the command's own.

    Raises:
        ValueError: naming what is wrong and the nearest names that are right.
    """
    flags = {argument for argument in arguments if argument.startswith("-")}
    for flag in sorted(flags - {"-m", "--multirun"}):
        raise ValueError(
            f"unknown flag {flag}; facerecon {name} takes KEY=VALUE, GROUP=OPTION, -m, --help and --version"
        )
    call = {k: _parse(word, several=bool(flags)) for k, word in enumerate(arguments) if word not in flags}
    file = recorded or config_folder() / f"{name}.yaml"
    groups = _groups(file)
    own = {k: o for k, o in call.items() if not (o.key_or_group.startswith("hydra") or o.package or o.is_delete())}
    chosen = [_first_option(override, name) for override in own.values() if override.key_or_group in groups]
    chosen += [arguments[k] for k, override in call.items() if override.package]
    with initialize_config_dir(str(file.resolve().parent), version_base="1.3"):
        search = [word for word in arguments if word.startswith("hydra.searchpath=")]
        config = OmegaConf.to_container(compose(file.stem, overrides=[*chosen, *search]))
    words = list(arguments)
    for k, override in own.items():
        if override.key_or_group not in groups:
            words[k] = _known(name, config, groups, override, arguments[k])
    given = {override.key_or_group for override in call.values()}
    for key in sorted(key for key, value in _entries(config) if value == "???" and key not in given):
        raise ValueError(f"{key} is required; give {key}=VALUE (facerecon {name} --help shows examples)")
    return words


def search_path() -> str:
    """The argument that lets a recorded config refer to the configs of the package."""
    path = str(config_folder()).replace("'", "\\'")
    return f"hydra.searchpath=['file://{path}']"


def _parse(argument: str, *, several: bool) -> Override:
    if "=" not in argument and argument[:1] != "~":
        raise ValueError(f"an argument must be key=value or group=option; got {argument!r}")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        raise ValueError(f"cannot read {argument!r}: {' '.join(str(error).split())}") from None
    if override.is_sweep_override() and not several:
        raise ValueError(f"{argument!r} asks for several runs: add -m; a list has brackets, as in [1,2]")
    return override


def _first_option(override: Override, command: str) -> str:
    """`group=option` with the first option asked for, or with a list of options, which is one choice. Raises ValueError
    unless the group has all of them."""
    group, options = override.key_or_group, _options(override.key_or_group, command)
    values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    if several := isinstance(values[0], list):
        values = values[0]
    names = ["null" if value is None else str(value) for value in values]
    for value in names:
        if value not in options:
            hint = did_you_mean(value, options, f"options are {', '.join(options)}")
            raise ValueError(f"{group} has no option {value!r}; {hint}")
    return f"{group}=[{','.join(names)}]" if several else f"{group}={names[0]}"


def _known(name: str, config: Any, groups: Iterable[str], override: Override, argument: str) -> str:
    """The argument, with `+` where the spec has the key and the config leaves it out."""
    key = override.key_or_group
    known = dict(_entries(config))
    held = known.get(key)
    if isinstance(held, dict) and not isinstance(override.value(), dict):
        inner = next(str(name) for name in held if name != "_target_")
        raise ValueError(f"{key} holds several keys; set one, as in {key}.{inner}=VALUE")
    if key in known:
        return argument
    addable = set(_addable(config))
    if key in addable:
        return argument if override.is_add() or override.is_force_add() else f"+{argument}"
    hint = did_you_mean(key, {*known, *addable, *groups}, f"facerecon {name} --help lists all keys")
    raise ValueError(f"unknown key {key!r}; {hint}")


def _entries(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config with its value; mappings come before what they hold."""
    for name, value in config.items():
        if name != "_target_":
            yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _entries(value, f"{prefix}{name}.")


def _addable(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys that a config leaves out and the dataclasses named by `_target_` have."""
    spec = spec_target(config["_target_"]) if "_target_" in config else None
    if is_dataclass(spec):
        yield from (prefix + field.name for field in fields(spec) if field.name not in config)
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _addable(value, f"{prefix}{name}.")
