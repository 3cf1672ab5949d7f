"""Folders, hubs, the terminal, the clock and the environment."""

from __future__ import annotations

import locale
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

from suffice.checkpoints.model_cache import hub_cache, modelscope_cache
from suffice.cli.doctor.findings import Section, shown_path, shown_value
from suffice.errors import first_line
from suffice.memory.device import human_bytes
from suffice.serve.config import without_password
from suffice.settings import data_folder

__all__ = ["environment", "folders", "hub", "terminal"]

_HUB = "https://huggingface.co"
_PATIENCE = 4.0  # seconds
_ROOM = 5 << 30  # bytes: a model of 2 billion parameters
_CLOCK = 300.0  # seconds that a clock may be wrong before certificates and tokens fail
_VARIABLES = ("SUFFICE_", "HF_", "HUGGINGFACE", "TRANSFORMERS_", "MODELSCOPE_", "CUDA_", "VLLM_", "PYTORCH_", "OPENAI_")
_ALSO = ("OMP_NUM_THREADS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "LD_LIBRARY_PATH", "PYTHONPATH")


def folders() -> Section:
    """Where models, results and the server's rows go: how much room there is, and whether we may write."""
    section = Section("Folders")
    places = {
        "models (HF)": hub_cache(),
        "results": Path.cwd(),
        "server": data_folder(),
        "temporary": Path(tempfile.gettempdir()),
    }
    if modelscope_cache().exists():
        places["models (ModelScope)"] = modelscope_cache()
    for name, folder in places.items():
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK | os.X_OK)
        section.facts[name] = f"{shown_path(folder)}, {human_bytes(free)} free" + ("" if writable else ", not writable")
        if not writable:
            do = (
                "HF_HOME names another folder"
                if folder == hub_cache()
                else f"change its permissions: {shown_path(there)}"
            )
            section.blame(f"{shown_path(folder)} cannot be written", do)
        elif name.startswith("models") and free < _ROOM:
            do = "suffice models rm makes room, and HF_HOME names another folder"
            section.blame(f"{shown_path(folder)} has room for no larger model ({human_bytes(free)})", do)
    return section


def hub(*, ask: bool = True, variables: Mapping[str, str] = os.environ) -> Section:
    """Whether models can be fetched, and whether the clock is right, by what the hub's answer says."""
    section = Section("Hub")
    url = variables.get("HF_ENDPOINT") or _HUB
    mirror = " (HF_ENDPOINT)" if variables.get("HF_ENDPOINT") else ""
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _true(variables.get(name, ""))]
    section.facts["address"] = without_password(url) + mirror
    token = bool(variables.get("HF_TOKEN")) or (hub_cache().parent / "token").exists()
    section.facts["token"] = "there (not shown)" if token else "none: public models only"
    if offline or not ask:
        section.facts["answers"] = f"not asked, because {offline[0]} is set" if offline else "not asked"
        return section
    answer, said = _ask(url)
    section.facts["answers"] = answer
    if said is None:
        do = "models that were fetched still run; HF_ENDPOINT names a mirror, --hub modelscope is the other hub"
        section.blame(f"the hub does not answer: {answer}", do)
    elif said:
        _check_clock(section, said)
    return section


def _true(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _ask(url: str) -> tuple[str, str | None]:
    """How it answered, and the date that it says; None for no answer.

    In a thread, because looking a name up knows no time-out.
    """
    found: list[tuple[str, str | None]] = []
    thread = threading.Thread(target=lambda: found.append(_answer(url)), daemon=True)
    thread.start()
    thread.join(_PATIENCE + 1)
    return found[0] if found else (f"nothing within {_PATIENCE:g} s", None)


def _answer(url: str) -> tuple[str, str | None]:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        return "the address is no URL", None
    began = time.monotonic()
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_PATIENCE) as answer:  # noqa: S310 - checked above
            headers = answer.headers
    except HTTPError as error:  # it answers, whatever it thinks of HEAD
        headers = error.headers
    except Exception as error:  # whatever a network comes up with
        reason = getattr(error, "reason", error)
        return first_line(reason if isinstance(reason, BaseException) else error), None
    return f"within {1000 * (time.monotonic() - began):.0f} ms", headers.get("Date") or ""


def _check_clock(section: Section, date: str) -> None:
    try:
        wrong = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    section.facts["clock"] = (
        "right" if abs(wrong) < _CLOCK else f"{abs(wrong):,.0f} s {'fast' if wrong > 0 else 'slow'}"
    )
    if abs(wrong) >= _CLOCK:
        section.blame(
            f"the clock is {section.facts['clock']}", "set it: certificates, keys that expire and quotas need it"
        )


def terminal() -> Section:
    """What answers are shown on."""
    section = Section("Terminal")
    size = shutil.get_terminal_size()
    shown = f"{size.columns} x {size.lines}" if sys.stdout.isatty() else "not a terminal (redirected)"
    encoding = sys.stdout.encoding or "unknown"
    section.facts["output"] = f"{shown}, TERM {os.environ.get('TERM') or 'not set'}"
    section.facts["encoding"] = f"{encoding} (locale {'.'.join(filter(None, locale.getlocale())) or 'C'})"
    section.facts["time"] = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if encoding.lower().replace("-", "") != "utf8":
        do = "export LANG=C.UTF-8, or PYTHONUTF8=1"
        section.blame(f"the encoding is {encoding}: not every character of an answer can be shown", do)
    return section


def environment(variables: Mapping[str, str] = os.environ) -> Section:
    """The variables that change what Suffice and its libraries do."""
    section = Section("Environment")
    for name, value in sorted(variables.items()):
        if name.startswith(_VARIABLES) or name.upper() in _ALSO:
            section.facts[name] = shown_value(name, value)
    return section
