"""Versions, and the engines that can run here."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata

from suffice.checkpoints.model_source import bundled_model
from suffice.cli.doctor.findings import Section, shown_path
from suffice.engines.managed.programs import PROGRAMS, find_program
from suffice.errors import UsageError, first_line
from suffice.memory.gpus import visible_gpus
from suffice.version import __version__

__all__ = ["engines", "versions"]

_NEEDED = ("torch", "transformers", "accelerate", "safetensors", "numpy", "jinja2", "psutil")
"""Without these, no model is loaded in this process."""
_SHOWN = (
    *_NEEDED,
    "tokenizers",
    "huggingface_hub",
    "peft",
    "bitsandbytes",
    "flash-attn",
    "modelscope",
    "aiohttp",
    "uvicorn",
)
_LOCAL = "pip install 'suffice[local]'"

_Version = Callable[[str], str | None]


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions(installed: _Version = _installed) -> Section:
    """Python, Suffice and the packages that it works with. `installed` gives a package's version, or None."""
    section = Section("Versions")
    section.facts["suffice"] = f"{__version__} in {shown_path(bundled_model().parent.parent)}"
    section.facts["Python"] = f"{platform.python_version()} ({shown_path(sys.executable)})"
    section.facts["system"] = f"{platform.platform(terse=True)}, {platform.machine()}"
    found = {name: installed(name) for name in _SHOWN}
    section.facts |= {name: version for name, version in found.items() if version is not None}
    if missing := [name for name in _NEEDED if found[name] is None]:
        section.blame(f"not installed: {', '.join(missing)}", f"{_LOCAL}, or use a server: --upstream URL", stops=True)
    _check_ranges(section, found)
    return section


def _check_ranges(section: Section, found: dict[str, str | None]) -> None:
    """Versions that Suffice was not tested with."""
    try:
        from packaging.requirements import Requirement

        named = {text.partition(";")[0].strip() for text in metadata.requires("suffice") or ()}  # extras share some
    except (ImportError, metadata.PackageNotFoundError):
        return
    for each in map(Requirement, sorted(named)):
        version = found.get(each.name)
        if version is not None and not each.specifier.contains(version, prereleases=True):
            section.blame(
                f"{each.name} is {version}", f"pip install '{each.name}{each.specifier}', as Suffice was tested with"
            )


def engines(installed: _Version = _installed) -> Section:
    """What can generate: this process, servers that are installed, engines of other packages."""
    section = Section("Engines")
    section.facts["transformers"] = _torch(section) if installed("torch") else "not installed"
    section.facts["openai"] = "any OpenAI-compatible server, with --upstream URL"
    for name in PROGRAMS:
        section.facts[name] = _server(section, name)
    for each in metadata.entry_points(group="suffice.engines"):
        section.facts[each.name] = each.value
    folder = bundled_model()
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        section.facts["bundled model"] = "there"
    else:
        section.blame(f"the bundled model is missing from {shown_path(folder)}", "install Suffice again", stops=True)
    return section


def _server(section: Section, name: str) -> str:
    """A server that Suffice can start: where it is, or how to install it where there is a GPU for it."""
    try:
        found = find_program(name)
    except UsageError as error:
        section.blame(f"{PROGRAMS[name].title} cannot be used", str(error))
        return "cannot be used"
    if found is not None:
        return f"{found.package} {found.version} ({shown_path(found.python)})"
    return "not installed" + (f"; {PROGRAMS[name].install}" if visible_gpus() else "")


def _torch(section: Section) -> str:
    """Whether torch and transformers load: a broken installation shows only then."""
    try:
        import torch
        import transformers
    except Exception as error:  # whatever a broken library comes up with
        section.blame(f"torch or transformers cannot be imported ({first_line(error)})", f"{_LOCAL} again", stops=True)
        return "cannot be imported"
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    return f"{transformers.__version__} on torch {torch.__version__}, built for {built}"
