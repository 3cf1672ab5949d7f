"""`suffice doctor`: what it finds, what it advises, and what it never shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fake_hub import fake_hub
from suffice.cli.doctor import hardware, software, surroundings
from suffice.cli.doctor.findings import Section, shown_path, shown_value
from suffice.cli.main import main
from suffice.memory.gpus import VisibleGpu

GIB = 1 << 30


def advice(section: Section) -> list[str]:
    return [f"{problem.what}: {problem.do}" for problem in section.problems]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_report_of_this_machine(
    as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://jane:pass9word@example.com/v1?api_key=k9ey")
    monkeypatch.setenv("SUFFICE_BUDGET_FILE", str(Path.home() / "budget.toml"))
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--offline", *(["--json"] if as_json else [])])
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "suffice infer runs here" in out or json.loads(out)["ready"]
    assert "~/budget.toml" in out
    for secret in ("secretsecret", "pass9word", "k9ey", str(Path.home())):
        assert secret not in out
    if as_json:
        report = json.loads(out)
        assert report["hub"]["answers"] == "not asked, because HF_HUB_OFFLINE is set"
        assert {"versions", "engines", "hardware", "folders", "terminal", "environment", "problems"} <= set(report)


def test_what_keeps_infer_from_running_makes_the_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(software, "bundled_model", lambda: tmp_path / "tiny")
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--offline"])
    assert exit_.value.code == 1
    out = capsys.readouterr().out
    assert "error: the bundled model is missing" in out
    assert out.endswith("suffice infer does not run here: see the errors above\n")


def test_packages_that_are_missing_or_of_another_version() -> None:
    found = {"torch": None, "transformers": "4.1.0"}
    section = software.versions(lambda name: found.get(name, "99"))
    [missing, *_] = advice(section)
    [other] = [each for each in advice(section) if each.startswith("transformers")]
    assert missing.startswith("not installed: torch: pip install 'suffice[local]'")
    assert section.problems[0].stops
    assert other.startswith("transformers is 4.1.0: pip install 'transformers")


def test_a_server_in_another_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUFFICE_ENGINE_PYTHON", sys.executable)
    assert software.engines().facts["vllm"].startswith(("not installed", "vllm"))
    monkeypatch.setenv("SUFFICE_ENGINE_PYTHON", str(tmp_path / "nowhere"))
    section = software.engines()
    assert section.facts["sglang"] == "cannot be used"
    assert any(each.startswith("vLLM cannot be used: engine_python is") for each in advice(section))


def test_the_limits_of_a_container(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "memory.max").write_text(f"{4 * GIB}\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    assert hardware.CgroupLimits.read(tmp_path, own) == hardware.CgroupLimits(1.5, 4 * GIB)
    old = tmp_path / "old"
    (old / "memory").mkdir(parents=True)
    (old / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert hardware.CgroupLimits.read(old, tmp_path / "none") == hardware.CgroupLimits()


@pytest.mark.parametrize(
    ("cuda", "usable", "visible", "says"),
    [
        (None, False, None, "this torch is built for the CPU"),
        ("13.0", False, None, "which the driver 535 does not run"),
        ("13.0", False, "-1", "unset CUDA_VISIBLE_DEVICES"),
        ("13.0", True, None, "GPU 0 has 1.00 GiB free of 24.0 GiB: nvidia-smi"),
    ],
)
def test_cards_that_cannot_be_used(
    cuda: str | None, usable: bool, visible: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    torch: Any = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: usable), version=SimpleNamespace(cuda=cuda))
    card = VisibleGpu(id="0", name="RTX 4090", total=24 * GIB, free=(1 if usable else 20) * GIB)
    section = Section("Hardware")
    hardware.blame_gpus(section, [] if visible else [card], "535", torch)
    [said] = advice(section)
    assert says in said


def test_the_hub_is_asked_once_and_tells_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with fake_hub("a/b", {}) as fake:
        section = surroundings.hub(variables={"HF_ENDPOINT": fake.url})
        assert section.facts["address"] == f"{fake.url} (HF_ENDPOINT)"
        assert section.facts["answers"].startswith("within ")
        assert section.facts["clock"] == "right"
        assert section.problems == []
        fake.date = "Fri, 01 Jan 2021 00:00:00 GMT"
        [said] = advice(surroundings.hub(variables={"HF_ENDPOINT": fake.url}))
        assert "s fast: set it" in said
    [said] = advice(surroundings.hub(variables={"HF_ENDPOINT": fake.url}))
    assert "the hub does not answer" in said
    assert "HF_ENDPOINT names a mirror" in said
    [said] = advice(surroundings.hub(variables={"HF_ENDPOINT": "mirror.example"}))
    assert "the address is no URL" in said


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with monkeypatch.context() as patch:
        patch.setattr(surroundings.os, "access", lambda path, mode: Path(path) != tmp_path)
        assert any("hub cannot be written: HF_HOME" in each for each in advice(surroundings.folders()))
    monkeypatch.setattr(surroundings.shutil, "disk_usage", lambda path: SimpleNamespace(free=GIB))
    assert any("has room for no larger model (1.00 GiB)" in each for each in advice(surroundings.folders()))


def test_what_is_shown_of_paths_and_values() -> None:
    home = Path.home()
    assert shown_path(home / "x") == "~/x"
    assert shown_path(f"{home}x") == f"{home}x"
    assert shown_value("LD_LIBRARY_PATH", f"/usr/lib:{home}/lib") == "/usr/lib:~/lib"
    assert shown_value("HF_TOKEN", "hf_x") == "set (not shown)"
    assert "pw" not in shown_value("HTTPS_PROXY", "http://me:pw@proxy:3128")
