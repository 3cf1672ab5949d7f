"""`suffice plan`: counts, cards, lengths, what fits, and the newcomers' questions."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from small import SMALL
from suffice.cli.main import main
from suffice.cli.plan.lengths import profile_lengths, read_lengths
from suffice.errors import DataError, UsageError
from suffice.memory import KvLayout, ModelSize, Serving, ServingMemory, parse_bytes, weight_bytes
from suffice.memory.cards import card, cards, cards_of, known_model, known_names
from suffice.memory.concurrency import TrafficLengths, concurrent_reserved, concurrent_running
from suffice.memory.inference import cache_tokens_that_fit, step_bytes
from suffice.memory.latency import speed
from suffice.memory.meter import LiveMemory, MemoryMeter
from suffice.memory.plan import ServingQuestion, make_plan

GIB = 2**30


def qwen() -> Any:
    found = known_model("Qwen/Qwen2.5-7B-Instruct")
    assert found is not None
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


# --- models and cards


def test_every_bundled_config_counts_to_the_published_parameters() -> None:
    for entry in json.loads((Path(sys.modules["suffice.memory"].__path__[0]) / "models.json").read_text("utf-8")):
        counted = ModelSize.from_config(entry["config"]).total + entry.get("extra_parameters", 0)
        assert counted == entry["parameters"], entry["names"]
        assert KvLayout.from_config(entry["config"]).bytes_per_token() > 0
    names = known_names()
    assert len(names) == len({name.lower() for name in names}) > 100


def test_the_check_value() -> None:
    layout = KvLayout.from_config(qwen().config)
    assert layout.bytes_per_token() == 28 * 4 * 128 * 2 * 2 == 57_344
    assert layout.bytes_for(2048) == 112 * 2**20
    found = known_model("DeepSeek-V3")
    assert found is not None
    assert KvLayout.from_config(found.config).bytes_per_token() == 61 * (512 + 64) * 2


EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "v_head_dim": 20, "n_routed_experts": 6}

CHUNKS = {"attention_chunk_size": 8, "head_dim": 12}
LINEAR = {
    "num_hidden_layers": 5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
}


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("mixtral", {"num_local_experts": 5}),
        ("qwen2_moe", {"num_experts": 6, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]}),
        ("qwen3_moe", {"num_experts": 6, "head_dim": 16, "decoder_sparse_step": 2}),
        ("deepseek_v2", LATENT | {"n_shared_experts": 2, "first_k_dense_replace": 1, "q_lora_rank": None}),
        ("deepseek_v3", LATENT | {"n_shared_experts": 1, "first_k_dense_replace": 2, "q_lora_rank": 24}),
        ("gpt_oss", {"num_local_experts": 6, "head_dim": 16, "sliding_window": 8}),
        (
            "llama4_text",
            {"num_local_experts": 6, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 100, **CHUNKS},
        ),
        ("qwen3_next", {"num_experts": 6, "shared_expert_intermediate_size": 40, "head_dim": 16, **LINEAR}),
    ],
)
def test_mixtures_count_to_the_modules_of_transformers(family: str, extra: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    settings = SMALL | EXPERTS | extra | ({"num_key_value_heads": 4} if "kv_lora_rank" in extra else {})
    config = transformers.AutoConfig.for_model(family, **settings)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    size = ModelSize.from_config(config.to_dict())
    assert size.total == sum(parameter.numel() for parameter in model.parameters())
    assert size.active < size.total


def test_phi_counts_to_the_modules_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    import transformers

    config = transformers.AutoConfig.for_model("phi3", **SMALL)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert ModelSize.from_config(config.to_dict()).total == sum(each.numel() for each in model.parameters())


def test_linear_attention_keeps_as_much_as_transformers_does() -> None:
    torch = pytest.importorskip("torch")
    import transformers

    extra = {"num_experts": 6, "shared_expert_intermediate_size": 40, "head_dim": 16, **EXPERTS, **LINEAR}
    config = transformers.AutoConfig.for_model("qwen3_next", **SMALL | extra)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        cache = model(torch.ones(1, 9, dtype=torch.long), use_cache=True).past_key_values
    layout = KvLayout.from_config(config.to_dict())
    assert layout.layers[0][1] == 1  # one layer of five has keys and values
    linear = [each for each in cache.layers if hasattr(each, "recurrent_states")]
    states = [state for each in linear for state in each.recurrent_states.values()]
    windows = [state for each in linear for state in each.conv_states.values()]
    assert len(states) == 4
    kept = sum(each.numel() for each in states)
    kernel = config.linear_conv_kernel_dim  # transformers keeps one column more than the convolution still needs
    kept += sum(each.numel() * (kernel - 1) // each.shape[-1] for each in windows)
    assert layout.state == kept
    assert layout.bytes_for(100) - layout.bytes_for(50) == 50 * layout.bytes_per_token()


@pytest.mark.parametrize(
    ("name", "bits", "gib"),
    [
        ("Qwen2.5-7B-Instruct-AWQ", 4.156, 5.19),  # 5.57 GB on the hub
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", 4.156, 5.19),
        ("Qwen2.5-7B-Instruct-GPTQ-Int8", 8, 8.1),
        ("Qwen3-8B-FP8", 8, 8.8),
        ("Llama-3.1-8B-Instruct-GGUF:Q4_K_M", 4.894, 4.58),  # llama.cpp's README: 4.58 GiB
        ("llama-3.1-8b-instruct-q8_0.gguf", 8.501, 7.95),  # likewise: 7.95 GiB
        ("Llama-3.1-8B-Instruct-bnb-4bit", 4, 5.4),
        ("gpt-oss-20b", 4.25, 12.8),  # 13.8 GB on the hub
        ("Qwen3-8B", 16, 15.3),
    ],
)
def test_names_of_quantised_models(capsys: pytest.CaptureFixture[str], name: str, bits: float, gib: float) -> None:
    record = json.loads(run(capsys, "--model", name, "--gpu", "4090", "--json")[1])
    assert record["weight_bits"] == pytest.approx(bits, abs=0.001)
    assert record["memory_bytes"]["weights"] / GIB == pytest.approx(gib, rel=0.02)


def test_a_gguf_has_to_say_which_file_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--model", "Qwen2.5-7B-Instruct-GGUF", "--gpu", "4090")
    assert status == 2
    assert "Qwen2.5-7B-Instruct-GGUF:Q4_K_M" in err
    assert len(err.splitlines()) == 1


def test_weights_shrink_with_their_bits() -> None:
    size = ModelSize.from_config(qwen().config)
    assert weight_bytes(size, 16) == 2 * 7_615_616_512
    assert weight_bytes(size, 32) == 4 * 7_615_616_512
    embeddings = 2 * 2 * 152_064 * 3584
    assert weight_bytes(size, 8) == pytest.approx(size.linear + embeddings, rel=0.001)
    assert 5.0 * GIB < weight_bytes(size, 4) < 5.4 * GIB  # AWQ's file of this model has 5.2 GiB
    with pytest.raises(UsageError, match="3 bits"):
        weight_bytes(size, 3)


@pytest.mark.parametrize("name", ["4090", "RTX 4090", "NVIDIA GeForce RTX 4090", "rtx-4090"])
def test_cards_go_by_many_names(name: str) -> None:
    assert card(name).memory == 24 * GIB
    assert card("A100-80GB").memory == 80 * GIB
    assert all(each.memory and each.source for each in cards().values())
    assert [key for key, each in cards().items() if not (each.bandwidth and each.flops and each.link)] == ["910b"]
    with pytest.raises(UsageError, match=r"voodoo2.*4090"):
        card("voodoo2")


@pytest.mark.parametrize(
    ("written", "name", "tflops"),
    [
        ("4090d", "NVIDIA GeForce RTX 4090 D", 147.1),
        ("RTX 4090 D", "NVIDIA GeForce RTX 4090 D", 147.1),
        ("rtx4090", "NVIDIA GeForce RTX 4090", 165.2),
        ("4090-24GB", "NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3090", 71.2),
        ("5080", "NVIDIA GeForce RTX 5080", 112.6),
        ("rtx 4060 ti 16gb", "NVIDIA GeForce RTX 4060 Ti 16 GB", 44.1),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM", 989),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 SXM 80 GB", 312),
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada", 364),
    ],
)
def test_cards_are_written_as_people_and_drivers_do(written: str, name: str, tflops: float) -> None:
    found = card(written)
    assert found.name == name
    assert found.flops == pytest.approx(tflops * 1e12, rel=0.001)


def test_a_laptops_card_is_not_taken_for_the_desktops() -> None:
    with pytest.raises(UsageError, match=r"4090 Laptop GPU.*--memory"):
        card("NVIDIA GeForce RTX 4090 Laptop GPU")


@pytest.mark.parametrize("written", ["4090 x2", "4090x2", "2x4090", "2 x RTX 4090", "RTX 4090*2", "2×4090"])
def test_several_cards_are_written_in_many_ways(written: str) -> None:
    found, count = cards_of(written)
    assert (found.name, count) == ("NVIDIA GeForce RTX 4090", 2)
    assert cards_of("8xH200")[1] == 8
    assert cards_of("l40s")[1] == 1
    for wrong in ("100x4090", "0x4090"):
        with pytest.raises(UsageError, match="1 to 64"):
            cards_of(wrong)


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * GIB), ("24 gb", 24 * GIB), ("24", 24 * GIB), ("512MiB", GIB // 2), ("0.5g", GIB // 2)],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size
    for wrong in ("lots", "-1GiB", "0"):
        with pytest.raises(UsageError, match="not an amount of memory"):
            parse_bytes(wrong)


# --- what runs at once


def test_one_length_fits_as_often_as_it_divides_the_room() -> None:
    layout, lengths = KvLayout.from_config(qwen().config), TrafficLengths.of([(100, 100)])
    room = 10 * layout.bytes_for(200)
    assert concurrent_reserved(lengths, layout, room, 2, 100) == 10
    assert concurrent_reserved(lengths, layout, room - 1, 2, 100) == 9
    assert concurrent_running(lengths, layout, layout.bytes_for(100), 2) == 0
    assert 10 < concurrent_running(lengths, layout, room, 2) < 13  # 150 each on average, and room for chance


@pytest.mark.parametrize("window", [None, 600])
def test_the_number_that_fits_holds_in_a_simulation(window: int | None) -> None:
    config = dict(
        qwen().config, layer_types=["full_attention"] * 14 + ["sliding_attention"] * 14, sliding_window=window
    )
    layout = KvLayout.from_config(qwen().config if window is None else config)
    draw = random.Random(0)
    pairs = [(draw.randint(1, 900), 1 + int(draw.lognormvariate(5, 1))) for _ in range(400)]
    room = 30_000 * layout.bytes_per_token()
    fits = concurrent_running(TrafficLengths.of(pairs), layout, room, 2)

    def share_of_time_over(requests: int) -> float:
        """Every slot runs one request after the other, a token a step."""
        slots = [[*draw.choice(pairs), 0] for _ in range(requests)]
        over = steps = 0
        for step in range(6000):
            for slot in slots:
                slot[2] += 1
                if slot[2] > slot[1]:
                    slot[:] = [*draw.choice(pairs), 1]
            if step >= 2000 and step % 10 == 0:
                steps += 1
                over += sum(layout.bytes_for(prompt + at) for prompt, _, at in slots) > room
        return over / steps

    assert share_of_time_over(fits) < 0.04
    assert share_of_time_over(round(fits * 1.25)) > 0.2


def test_lengths_from_every_kind_of_file(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,ContextTokens,GeneratedTokens\n0,10,5\n1,20,0\n2,,7\n3,10,5\n")
    found = read_lengths(trace)
    assert (found.pairs, found.rows, found.skipped) == (((10, 5, 2),), 2, 2)
    log = tmp_path / "log.jsonl.gz"
    rows = [
        {"usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"prompt_tokens": 5, "answer_tokens": 6.0},
        {"a": 1},
    ]
    with gzip.open(log, "wt", encoding="utf-8") as file:
        file.write("\n".join([*map(json.dumps, rows), "broken"]))
    found = read_lengths(log)
    assert (found.pairs, found.skipped) == (((3, 4, 1), (5, 6, 1)), 2)
    assert found.mean() == (4, 5)
    assert found.quantile(1.0) == (5, 6)
    assert found.cut_share(5) == 0.5
    assert found.capped(5).pairs == ((3, 4, 1), (5, 5, 1))
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    for path in (tmp_path / "no.csv", tmp_path / "missing.csv"):
        with pytest.raises(DataError):
            read_lengths(path)


def test_lengths_of_an_adapters_profile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from suffice.budget.length_profile import LengthProfile

    draw = random.Random(3)
    answers = [1 + int(draw.lognormvariate(4, 0.7)) for _ in range(2000)]
    LengthProfile.measure(("a question", length) for length in answers).save(tmp_path)
    found = profile_lengths(tmp_path, 100)
    assert found.rows == 1000
    assert found.mean()[0] == 100
    assert found.mean()[1] == pytest.approx(sum(answers) / len(answers), rel=0.12)
    ordered = sorted(answers)
    assert found.quantile(0.95)[1] == pytest.approx(ordered[1899], rel=0.02)
    out = run(capsys, "--model", "Qwen3-8B", "--gpu", "l4", "--lengths", str(tmp_path), "--max_new_tokens", "512")[1]
    assert "with your traffic" in out
    with pytest.raises(DataError, match="no length profile"):
        profile_lengths(tmp_path / "elsewhere.json", 1)


def test_the_parts_fill_the_card() -> None:
    memory = ServingMemory.of(qwen().config, Serving(), 24 * GIB, utilization=0.9)
    assert memory.kv_room + sum(size for _, size in memory.parts()) == 24 * GIB
    assert memory.weights == 2 * 7_615_616_512
    assert 6 * GIB < memory.kv_room < 7 * GIB
    with pytest.raises(UsageError, match=r"1\.5"):
        ServingMemory.of(qwen().config, Serving(), 24 * GIB, utilization=1.5)
    with pytest.raises(UsageError, match="KV cache of 3 bits"):
        Serving(kv_bits=3)


def test_activations_are_the_largest_of_three_moments() -> None:
    config = qwen().config
    stream = 2 * 1000 * 3584 * 2
    assert step_bytes(config, 1000, 1, 2) == stream + 1000 * 3 * 18944 * 2
    assert step_bytes(config, 1000, 1000, 2) == stream + 1000 * 152_064 * 6
    assert step_bytes(config, 1000, 1, 2, read_tokens=100_000) == stream + (5 * 1000 + 200_000) * 3584 * 2


def test_the_cache_has_whole_pages_and_at_least_one() -> None:
    layout = KvLayout.from_config(qwen().config)
    room = 1000 * 57_344
    assert cache_tokens_that_fit(layout, room, beside=0, bytes_per_value=2, page_size=16) == 992
    assert cache_tokens_that_fit(layout, room, beside=room, bytes_per_value=2, page_size=16) == 16


def test_the_roofline_of_one_request_is_reading_the_weights() -> None:
    model, gpu = qwen(), card("4090")
    size = ModelSize.from_config(model.config)
    best = speed(model.config, Serving(), gpu, prompt_tokens=1000, answer_tokens=100, concurrency=1)
    assert best is not None
    assert best.per_token == pytest.approx((2 * size.active + 1050 * 57_344) / 1.008e12)
    assert best.first_token == pytest.approx(1000 * (2 * size.active + 2 * 28 * 3584 * 1000) / 165.2e12, rel=1e-3)
    assert best.answer_seconds == pytest.approx(best.first_token + 100 * best.per_token)
    many = speed(model.config, Serving(), gpu, prompt_tokens=1000, answer_tokens=100, concurrency=50)
    assert many is not None
    assert many.answers_per_hour > 10 * best.answers_per_hour
    assert many.cost(0.5) == pytest.approx(1000 * 0.5 / many.answers_per_hour)
    from suffice.memory.cards import Card

    assert speed(model.config, Serving(), Card("?", GIB), prompt_tokens=1, answer_tokens=1, concurrency=1) is None


def test_the_table_shrinks_with_every_length_and_paged_is_never_worse() -> None:
    cells = make_plan(ServingQuestion(qwen(), card("4090"), Serving())).cells
    for cell in cells:
        assert cell.paged >= cell.reserved > 0
        for other in cells:
            if other.prompt_tokens >= cell.prompt_tokens and other.max_new_tokens >= cell.max_new_tokens:
                assert other.reserved <= cell.reserved
                assert other.paged <= cell.paged


# --- the command


def test_will_it_serve_twenty_users_with_a_long_context(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("--model", "Qwen2.5-7B-Instruct", "--gpu", "4090", "--max_length", "32k", "--concurrency")
    status, out, _ = run(capsys, *question, "20")
    first = out.splitlines()[0]
    assert status == 1
    assert first.startswith("no: 20 x 1.75 GiB (32,768 tokens x 57,344 bytes) = 35.0 GiB")
    assert "3 fit" in first
    assert "would fit: 4 of this card: --gpu 'NVIDIA GeForce RTX 4090 x4'" in out
    assert "would fit: a card with 80.0 GiB" in out
    assert "to the first token" not in out
    status, out, _ = run(capsys, *question, "3")
    assert status == 0
    assert out.startswith("yes: 3 requests of 32,768 tokens take 5.25 GiB")
    assert "to the first token after a prompt of 512 tokens" in out
    assert run(capsys, *question, "20", "--gpu", "4090 x4")[0] == 0  # what was advised


def test_can_i_generate_beside_a_training_run(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("--model", "Qwen2.5-7B-Instruct", "--gpu", "4090", "--used", "22GiB", "--max_new_tokens", "2048")
    status, out, _ = run(capsys, *question)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("yes: inside the process whose model is loaded: 1 request of 2,560 tokens takes 140 MiB")
    assert lines[1].startswith("no: with a copy of the model of its own: not even the model fits")
    assert "to the first token" not in out


def test_real_lengths_beat_the_worst_case(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    draw = random.Random(1)
    rows = [f"{draw.randint(50, 500)},{draw.randint(20, 400)}" for _ in range(500)]
    trace.write_text("\n".join(["prompt_tokens,output_tokens", *rows]))
    asked = ("--model", "Qwen2.5-7B-Instruct", "--gpu", "4090", "--lengths", str(trace), "--max_new_tokens", "2048")
    out = run(capsys, *asked, "--price", "0.5")[1]
    assert "with your traffic:" in out
    assert "per 1,000 answers at 0.5 per hour" in out
    record = json.loads(run(capsys, *asked, "--price", "0.5", "--json")[1])
    assert record["traffic"]["paged"] > 3 * record["traffic"]["reserved"] > 0
    assert record["traffic"]["rows"] == 500
    assert record["kv_bytes_per_token"] == 57_344
    assert record["price_per_1000_answers"] > 0


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"plan.{ending}"
    for more in ((), ("--train", "lora"), ("--used", "22GiB", "--max_new_tokens", "64")):
        assert run(capsys, "--model", "Qwen3-8B", "--gpu", "4090", "--plot", str(picture), *more)[0] < 2
        assert picture.read_bytes().startswith(magic)
        picture.unlink()
    status, _, err = run(capsys, "--model", "Qwen3-8B", "--gpu", "4090", "--plot", "plan.bmp")
    assert status == 2
    assert "must end in .png" in err


def test_training_is_the_forecast_of_sft(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("--model", "Qwen2.5-7B-Instruct", "--gpu", "4090", "--train")
    status, out, _ = run(capsys, *question, "lora")
    assert status == 0
    assert "total        19.0 GiB" in out
    first = out.splitlines()[0]
    assert first.startswith("yes: lora training of Qwen2.5-7B-Instruct on")
    assert first.endswith("fits: 19.0 GiB of 24.0 GiB")
    status, out, _ = run(capsys, *question, "full")
    assert status == 1
    assert out.startswith("no: full training of Qwen2.5-7B-Instruct on")
    assert "does not fit: 89.6 GiB" in out
    assert "would fit: --train lora" in out
    record = json.loads(run(capsys, *question, "qlora", "--json")[1])
    assert record["fits"] is True
    assert record["bytes"]["total"] < 14 * GIB


def test_a_folder_and_a_model_that_is_nowhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dict(qwen().config)))
    record = json.loads(run(capsys, "--model", str(tmp_path), "--memory", "24GiB", "--json")[1])
    assert record["kv_bytes_per_token"] == 57_344
    (tmp_path / "config.json").write_text("{")
    assert run(capsys, "--model", str(tmp_path), "--memory", "24GiB")[0] == 2
    status, _, err = run(capsys, "--model", "Qwen2.5-9B-Instruct", "--memory", "24GiB")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "Qwen2.5-7B-Instruct" in err


def test_more_than_the_context_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--model", "Qwen2.5-7B-Instruct", "--gpu", "h100", "--max_length", "64k")[1]
    assert out.startswith("no: 65,536 tokens are more than the model's context of 32,768")


def test_quantised_configs_and_small_cards_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(run(capsys, "--model", "DeepSeek-V3", "--gpu", "mi300x", "--json")[1])
    assert record["weight_bits"] == 8
    out = run(capsys, "--model", "Llama-3.1-70B-Instruct", "--gpu", "4090", "--concurrency", "1")[1]
    assert out.startswith("no: not even the model fits: weights 131 GiB")
    assert "no room for a KV cache" in out


def test_what_does_not_fit_is_no_even_where_nothing_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--model", "Qwen2.5-72B-Instruct", "--gpu", "4090", "--price", "1")
    assert status == 1
    assert out.startswith("no: not even the model fits")
    assert "to the first token" not in out
    assert "per 1,000 answers" not in out
    status, out, _ = run(capsys, "--model", "Qwen2.5-72B-Instruct", "--gpu", "4090", "--json")
    assert status == 1
    assert json.loads(out)["fits"] is False
    assert "at_best" not in json.loads(out)
    record = json.loads(run(capsys, "--model", "Qwen3-8B", "--gpu", "4090", "--prompt_tokens", "700", "--json")[1])
    assert record["fits"] is True
    assert record["at_best"]["prompt_tokens"] == 700


def test_several_cards_without_quotation_marks(capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", "Llama-3.1-70B-Instruct", "--max_length", "4k", "--concurrency", "8")
    status, out, _ = run(capsys, "--gpu", "RTX", "4090", "D", "x8", *model)
    assert status == 0
    assert "on 8 x NVIDIA GeForce RTX 4090 D, 24.0 GiB each (tensor parallelism over 8)" in out
    assert "linked with 64 GB/s" in out
    status, out, err = run(capsys, "--gpu", "8xh200", "--tp", "2", *model)
    assert status == 0
    assert "on 2 x NVIDIA H200" in out
    assert "8 hold 4 such copies" in err
    assert "on 4 x NVIDIA L40S" in run(capsys, "--gpu", "l40s", "--tp", "4", *model)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Qwen2.5-7B-Instruct", "--gpu", "8xh200"), r"28 attention heads do not divide by 8.*1 or 2 or 4"),
        (("Qwen3-8B", "--gpu", "2x4090", "--tp", "4"), r"--tp 4 needs 4 cards"),
        (("Qwen3-8B", "--gpu", "2x4090", "--train", "lora"), r"plans one card, and 2"),
        (("Qwen3-8B", "--gpu", "9090 x2"), r"no card '9090'"),
    ],
)
def test_what_several_cards_cannot_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    status, _, err = run(capsys, "--model", *arguments)
    assert status == 2
    assert re.search(said, err)
    assert len(err.splitlines()) == 1


def test_planning_loads_no_torch_and_no_numpy() -> None:
    program = (
        "import sys\nfrom suffice.cli.main import main\n"
        "try:\n    main(['plan', '--model', 'Qwen3-8B', '--gpu', 'l4'])\n"
        "except SystemExit:\n    print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


# --- the meter


class Device:
    """A device whose memory a test sets, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.now = 20 * GIB, 0.0
        monkeypatch.setattr("suffice.memory.meter._cpu", lambda: (24 * GIB, self.free, 2 * GIB, 3 * GIB))

    def clock(self) -> float:
        return self.now


def test_a_warning_comes_before_memory_is_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    meter = MemoryMeter("cpu", clock=device.clock)
    said: list[tuple[int, str]] = []
    for _ in range(20):
        if (text := meter.warning(meter.read())) is not None:
            said.append((device.free, text))
        device.now += 2
        device.free -= GIB
    assert len(said) == 2  # each once
    assert said[0][0] > 15 * GIB
    assert "will be tight in about" in said[0][1]
    assert "is tight" in said[1][1]
    assert said[1][0] < 0.06 * 24 * GIB


def test_steady_use_is_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    device.free = 3 * GIB
    meter = MemoryMeter("cpu", lambda: (95, 100), clock=device.clock)
    warnings = []
    for _ in range(30):
        warnings.append(meter.warning(meter.read()))
        device.now += 2
    (text,) = [each for each in warnings if each]
    assert "95 % full" in text


def test_a_reading_adds_up_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch)
    reading = MemoryMeter("cpu", lambda: (2**20, 2**28)).read()
    assert reading.others == GIB
    assert reading.line() == "memory 2.00 GiB (reserved 3.00 GiB), KV 1.00 MiB of 256 MiB, 20.0 GiB free"
    assert reading.to_dict()["kv_total"] == 2**28
    warned: list[str] = []
    broken = MemoryMeter("cpu", lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    assert LiveMemory(broken, warned.append).note() == ""
    assert warned == []


def test_the_meter_of_this_machine() -> None:
    psutil = pytest.importorskip("psutil")
    reading = MemoryMeter("cpu").read()
    assert 0 < reading.allocated < reading.total == psutil.virtual_memory().total
