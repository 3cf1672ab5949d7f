"""`suffice models` on caches of the test's own, and on a small hub on loopback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_hub import COMMIT, FakeHub, fake_hub
from suffice.checkpoints.model_cache import CachedModel, cached_models, fetched_names, remove_model
from suffice.checkpoints.model_source import bundled_model
from suffice.cli.main import main
from suffice.errors import ModelError

CONFIG = (bundled_model() / "config.json").read_bytes()
FILES = {
    "config.json": CONFIG,
    "model.safetensors": b"w" * 5000,
    "pytorch_model.bin": b"p" * 9000,
    "original/consolidated.safetensors": b"o" * 7000,
    "tokenizer.json": b"{}",
}


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "scope"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


def in_hub_cache(name: str, files: dict[str, bytes]) -> Path:
    """A model in the layout of the Hugging Face cache: blobs, and links to them from a snapshot."""
    folder = Path(os.environ["HF_HUB_CACHE"]) / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for number, (file, content) in enumerate(files.items()):
        (folder / "blobs" / str(number)).write_bytes(content)
        (snapshot / file).symlink_to(f"../../blobs/{number}")
    return folder


def in_modelscope_cache(name: str, files: dict[str, bytes]) -> Path:
    folder = Path(os.environ["MODELSCOPE_CACHE"]) / "models" / name.replace(".", "___")
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["models", *arguments])
    captured = capsys.readouterr()
    assert exit_.value.code == status, captured.err
    return captured.err if status else captured.out


def test_the_list_has_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_hub_cache("Qwen/Qwen9-1B", {"config.json": CONFIG, "model.safetensors": b"w" * 5000})
    in_hub_cache("Qwen/Qwen9-7B", {"config.json": CONFIG})
    in_modelscope_cache("Qwen/Qwen9.5-1B", {"config.json": CONFIG, "model.safetensors": b"w" * 3000})
    adapter = tmp_path / "output" / "v0-1" / "checkpoint-5"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen9-1B", "r": 8}')
    rows = {row["name"]: row for row in json.loads(run(capsys, "list", "--json"))}
    assert rows["suffice-tiny"]["where"] == "bundled"
    assert rows["Qwen/Qwen9-1B"]["bytes"] == 5000 + len(CONFIG) + len(COMMIT)
    assert rows["Qwen/Qwen9-1B"]["parameters"] == rows["suffice-tiny"]["parameters"] > 2_000_000
    assert rows["Qwen/Qwen9-1B"]["note"] == ""
    assert "pull" in rows["Qwen/Qwen9-7B"]["note"]
    assert (rows["Qwen/Qwen9.5-1B"]["where"], rows["Qwen/Qwen9.5-1B"]["context"]) == ("modelscope", 4096)
    assert rows["output/v0-1/checkpoint-5"]["where"] == "adapter of Qwen9-1B, rank 8"
    table = run(capsys, "list").splitlines()
    assert [line.split()[0] for line in table] == ["name", *rows]


def test_the_list_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    in_hub_cache("Qwen/Qwen9-7B", {"config.json": CONFIG})
    lines = run(capsys, "list").splitlines()
    assert "Qwen/Qwen9-7B" in lines
    assert max(map(len, lines)) <= 50


def test_a_model_is_removed_from_either_cache(capsys: pytest.CaptureFixture[str]) -> None:
    kept = in_hub_cache("Qwen/Qwen9-7B", {"config.json": CONFIG})
    gone = in_hub_cache("Qwen/Qwen9-1B", {"config.json": CONFIG, "model.safetensors": b"w" * 5000})
    (gone / "blobs" / "x.incomplete").write_bytes(b"x" * 10_000)
    scope = in_modelscope_cache("Qwen/Qwen9.5-1B", {"config.json": CONFIG, "model.safetensors": b"w" * 3000})
    assert fetched_names() == ["Qwen/Qwen9-1B", "Qwen/Qwen9-7B", "Qwen/Qwen9.5-1B"]
    size = f"{(5000 + 10_000 + len(CONFIG) + len(COMMIT)) / 1024:.1f} KiB"
    assert run(capsys, "rm", "qwen9-1b", "--yes") == f"removed Qwen/Qwen9-1B: {size} freed\n"
    assert "removed Qwen/Qwen9.5-1B" in run(capsys, "rm", "Qwen/Qwen9.5-1B", "-y")
    assert (kept.exists(), gone.exists(), scope.exists()) == (True, False, False)


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("n", False), ("", False)])
def test_a_person_is_asked(
    answer: str, removed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_hub_cache("Qwen/Qwen9-7B", {"config.json": CONFIG})
    typed = io.StringIO(f"{answer}\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", typed)
    with pytest.raises(SystemExit) as exit_:
        main(["models", "rm", "Qwen9-7B"])
    assert exit_.value.code == (0 if removed else 130)
    assert folder.exists() != removed
    assert str(folder) in capsys.readouterr().err, "what would go is said before the question"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("rm Qwen9-7B", "--yes deletes without a question"),
        ("rm Qwen9-8B --yes", "did you mean Qwen/Qwen9-7B?"),
        ("rm suffice-tiny --yes", "comes with Suffice"),
        ("rm ../hub --yes", "no model ../hub in the caches"),
        ("rm . --yes", "is a file or folder of yours"),
        ("rm Qwen9-7B --hub modelscope --yes", "no model Qwen9-7B in the caches"),
        ("rm twin --yes", "may be a/twin or b/twin"),
        ("pull .", "holds no model"),
        ("pull", "NAME is missing"),
    ],
)
def test_what_is_not_removed_or_fetched(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Qwen/Qwen9-7B", "a/twin", "b/twin"):
        in_hub_cache(name, {"config.json": CONFIG})
    assert says in run(capsys, *arguments.split(), status=2)
    assert len(fetched_names()) == 3


def test_nothing_outside_a_cache_is_removed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    linked = Path(os.environ["HF_HUB_CACHE"])
    linked.mkdir()
    (linked / "models--a--b").symlink_to(mine)
    outside = CachedModel(name="a/b", hub="modelscope", folder=mine, files=None, bytes=0, last_used=0)
    for model in (outside, *cached_models()):
        with pytest.raises(ModelError, match="is not a folder of the cache"):
            remove_model(model)
    assert mine.is_dir()


# --- fetching


def pull(hub: FakeHub, name: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's library reads its variables when it is imported."""
    code = "from suffice.cli.main import main; main()"
    away = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code, "models", "pull", name]
    return subprocess.run(command, env=os.environ | away, capture_output=True, text=True, timeout=120, check=False)


def test_a_model_is_fetched_once_without_pickles() -> None:
    with fake_hub("Qwen/Qwen9-1B", FILES) as hub:
        done = pull(hub, "Qwen9-1B")
        assert done.returncode == 0, done.stderr
        assert sorted(hub.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
        [model] = cached_models()
        assert model.complete
        assert done.stdout == f"Qwen/Qwen9-1B is in {model.files}\n"
        assert "try it: suffice infer --model Qwen9-1B" in done.stderr
        hub.fetched.clear()
        again = pull(hub, "Qwen9-1B")
        assert ", 0 bytes to fetch" in again.stderr
        assert hub.fetched == []


def test_why_a_model_cannot_be_fetched() -> None:
    with fake_hub("a/pickles", {"config.json": CONFIG, "pytorch_model.bin": b"p"}) as hub:
        said = {"a/pickles": "has no weights in safetensors", "a/nothing": "the hub has no model a/nothing"}
        for name, says in said.items():
            done = pull(hub, name)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
            assert says in done.stderr
        assert hub.fetched == []
    with fake_hub("a/gated", FILES, gated=True) as hub:
        done = pull(hub, "a/gated")
        assert done.returncode == 2
        assert "accept its terms" in done.stderr
    done = pull(hub, "a/gated")
    assert "the hub cannot be reached to fetch a/gated" in done.stderr
