"""What was public under another name still works, and says its new one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import suffice
from suffice.deprecated import _DISSOLVED, _moved_modules

NAMES = {
    "budget": "DEFAULT_TIERS Budget Budgeter LengthEstimate LengthEstimator LengthModel LengthPrediction Question "
    "TextRatios Tier estimate_tokens",
    "budget.model": "Asked LengthModel LengthPrediction",
    "data": "AnswerSummary Conversation DatasetRows DatasetSummary ResultWriter RowError Turn count_rows "
    "dataset_fingerprint read_answers read_dataset read_results",
    "data.lengths": "DEFAULT_GROUPS Histogram LengthReader LengthRecord MemoryFacts Profile Report TokenCounter advise "
    "find_sources measure row_limits",
    "engines": "Capacity Chunk Engine Finish GenerationRequest Health Message Prefix Sampling TokenCount Usage "
    "open_engine",
    "engines.local": "LocalEngine",
    "engines.remote": "RemoteEngine",
    "memory": "Architecture KvLayout LiveMemory MemoryMeter MemoryReading Metered ModelSize Serving ServingMemory "
    "Suggestion TrainingForecast TrainingSetup forecast_training free_memory human_bytes is_memory_error "
    "kv_bytes_per_token lora_parameter_count parameter_count parse_bytes return_freed_memory weight_bytes "
    "what_would_fit",
    "schedule": "Admission Pool QueueFullError Slot Throughput Trace Upstream",
    "serve": "ServeSettings load_serve_settings",
    "session": "Answer AnswerBuilder Event Progress Repetition Request Session Text Thinking ToolCallPiece "
    "side_by_side",
    "train": "Outcome Plan Recipe Resumed export_merged make_plan resume train",
    "watch": "CallSplitter IncrementalDecoder Runaway RunawayDetector StopMatch StopWords TextSeam ThinkingSplitter",
}
"""The public names of each package before rooms and names were put in order."""
RENAMED = {
    "budget.DEFAULT_TIERS",
    "budget.LengthEstimate",
    "budget.Question",
    "budget.model.Asked",
    "data.RowError",
    "engines.Capacity",
    "memory.lora_parameter_count",
    "memory.parameter_count",
    "engines.Prefix",
    "session.side_by_side",
    "train.Plan",
    "watch.TextSeam",
    *(f"schedule.{name}" for name in NAMES["schedule"].split()),
}
"""Those of them that have another name today."""
NEEDS = {"memory": "numpy", "serve": "sqlalchemy", "train": "torch", "budget": "numpy", "engines.local": "torch"}


@pytest.mark.parametrize("name", [f"{package}.{name}" for package, names in NAMES.items() for name in names.split()])
@pytest.mark.filterwarnings("always::DeprecationWarning")
def test_every_public_name_of_before_can_be_imported(name: str) -> None:
    package, _, attribute = name.rpartition(".")
    if package in NEEDS:
        pytest.importorskip(NEEDS[package])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = importlib.import_module(f"suffice.{package}")
        caught.clear()  # of the module's own path
        assert getattr(module, attribute) is not None
    told = [str(warning.message) for warning in caught if "deprecated" in str(warning.message)]
    assert len(told) == (name in RENAMED)
    assert all(f"{attribute} is deprecated: use suffice." in text and "\n" not in text for text in told)


@pytest.mark.parametrize("old", sorted(_moved_modules()))
def test_a_module_that_moved_is_the_same_under_its_old_path(old: str) -> None:
    new = _moved_modules()[old]
    path = Path(suffice.__file__).parent.joinpath(*new.split(".")[1:])
    assert path.is_dir() or path.with_suffix(".py").is_file(), "moved to where nothing is"
    gone = Path(suffice.__file__).parent.joinpath(*old.split(".")[1:])
    assert not gone.is_dir(), "the old path is in use again"
    assert not gone.with_suffix(".py").exists(), "the old path is in use again"


@pytest.mark.parametrize("old", ["suffice.budget.ratios", "suffice.budget.model.text", "suffice.schedule.pool"])
def test_importing_an_old_path_warns_where_it_is_imported(old: str) -> None:
    pytest.importorskip("numpy")
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is deprecated: use suffice") as caught:
        module = importlib.import_module(old)
    assert module is importlib.import_module(_moved_modules()[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == module.__name__ == _moved_modules()[old]
    assert sum("deprecated" in str(warning.message) and old in str(warning.message) for warning in caught) == 1


def test_the_warning_points_at_the_users_line(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text("import suffice\nfrom suffice.watch.text import StopWords\nfrom suffice.schedule import Pool\n")
    done = subprocess.run([sys.executable, "-W", "always", script], capture_output=True, text=True, check=True)
    told = [line for line in done.stderr.splitlines() if "DeprecationWarning" in line]
    assert all("user.py:" in line for line in told)
    assert "suffice.watch.text.StopWords is deprecated: use suffice.watch.stop_words.StopWords" in told[0]
    assert any("suffice.schedule.Pool is deprecated: use suffice.engines.pool.Pool" in line for line in told)


def test_no_old_name_is_needed_for_what_the_package_offers() -> None:
    code = "import suffice\nfor name in suffice.__all__: getattr(suffice, name)"
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning:suffice", "-c", code], check=True)
    assert set(_DISSOLVED) == {"suffice.schedule", "suffice.watch.text"}
