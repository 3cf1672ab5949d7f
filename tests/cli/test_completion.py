"""Shell completion, asked by the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from suffice.cli.main import main

PATIENCE = 120.0  # seconds until a shell is taken for dead


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """A program `suffice` on the path, and a cache with one model."""
    program = tmp_path / "bin" / "suffice"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m suffice "$@"\n')
    program.chmod(0o755)
    (tmp_path / "hub" / "models--Qwen--Qwen9-1B").mkdir(parents=True)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "HF_HUB_CACHE": str(tmp_path / "hub"), "TERM": "dumb", "HOME": str(tmp_path)}


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["completion", shell])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_bash_completes(shell_environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        "suffice inf": ["infer"],
        "suffice infer --max-new": ["--max-new-tokens"],
        "suffice infer --max_new": ["--max_new_tokens"],
        "suffice infer --on_runaway ": ["stop", "warn", "off"],
        "suffice infer --on-runaway w": ["warn"],
        "suffice infer --model qwen": ["Qwen/Qwen9-1B"],
        "suffice keys re": ["revoke"],
        "suffice models rm Q": ["Qwen/Qwen9-1B"],
        "suffice completion z": ["zsh"],
    }
    calls = []
    for line in asked:
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        calls.append(f"COMPREPLY=(); COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _suffice_completion suffice")
        calls.append('(IFS=" "; echo "${COMPREPLY[*]}")')
    code = "\n".join([script("bash", capsys), *calls])
    command = ["bash", "--norc", "-c", code]
    done = subprocess.run(command, env=shell_environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == list(asked.values()), done.stderr


def test_bash_completes_the_second_file_of_a_flag_at_the_tab_key(
    shell_environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "complete.sh").write_text(script("bash", capsys))
    (tmp_path / "second_rows.jsonl").touch()
    shown = typed_in_bash(
        "source complete.sh; echo re''ady\n", "suffice infer --dataset a.jsonl sec\t", shell_environment, tmp_path
    )
    assert "second_rows.jsonl" in shown


def typed_in_bash(setup: str, keys: str, environment: dict[str, str], folder: Path) -> str:
    """What an interactive bash shows after the keys, up to the file name that it completes."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    shown = ""
    try:
        for text, awaited in ((setup, "ready"), (keys, "rows.jsonl")):
            os.write(terminal, text.encode())
            deadline, shown = time.monotonic() + PATIENCE, ""
            while awaited not in shown and time.monotonic() < deadline:
                if select.select([terminal], [], [], 1.0)[0]:
                    shown += os.read(terminal, 4096).decode(errors="replace")
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return shown


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_are_valid(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script").write_text(script(shell, capsys))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=PATIENCE)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(shell_environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code = script("fish", capsys) + "\ncomplete -C 'suffice infer --max_new'; complete -C 'suffice ke'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], env=shell_environment, capture_output=True, text=True, timeout=PATIENCE
    )
    flag, command = done.stdout.splitlines()
    assert flag.startswith("--max_new_tokens\t"), done.stderr
    assert command == "keys\tMake, show, revoke and replace keys of the server."


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_answer_to_other_shells(shell: str, shell_environment: dict[str, str]) -> None:
    """What their scripts read, whether or not they are installed."""
    words = {"zsh": ("suffice infer --hub m", "3"), "fish": ("suffice infer --hub m", "m")}[shell]
    asked = {"_SUFFICE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words[0], "COMP_CWORD": words[1]}
    done = subprocess.run(
        ["suffice"], env=shell_environment | asked, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split() == {"zsh": ["plain", "modelscope", "_"], "fish": ["plain,modelscope"]}[shell]


def test_completing_loads_nothing_heavy(shell_environment: dict[str, str]) -> None:
    code = (
        "import sys, suffice.cli.main as m\n"
        "try: m.main([])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'aiohttp', 'rich', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    asked = {"_SUFFICE_COMPLETE": "bash_complete", "COMP_WORDS": "suffice sft --model Q", "COMP_CWORD": "3"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=shell_environment | asked, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["dir,Q", "plain,Qwen/Qwen9-1B", "[]"]


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    for arguments, says in ((["completion", "bsh"], "did you mean bash?"), (["completion"], "SHELL is 'tcsh'")):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert says in capsys.readouterr().err
