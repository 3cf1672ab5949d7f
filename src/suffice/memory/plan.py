"""Plans what fits on a device, in the worst case or with real lengths, and what to change if it does not fit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from suffice.deprecated import renamed
from suffice.memory.cards import Card, KnownModel, cards
from suffice.memory.concurrency import TrafficLengths, concurrent_reserved, concurrent_running
from suffice.memory.device import human_bytes
from suffice.memory.inference import Serving, ServingMemory, kv_shortage
from suffice.memory.kv import KvLayout
from suffice.memory.latency import Speed, speed
from suffice.memory.tensor_parallel import share_of_config, sizes_that_divide

__all__ = ["Cell", "ServingPlan", "ServingQuestion", "TrafficFit", "Verdict", "make_plan"]

_MOST_IN_ONE_MACHINE = 8  # cards


@dataclass(frozen=True, slots=True)
class ServingQuestion:
    model: KnownModel
    card: Card
    serving: Serving
    used: int = 0
    """Bytes that other programs take of the card."""
    utilization: float = 0.9
    """Share of the card that may be used: vLLM's default."""
    concurrency: int | None = None
    """Requests that should run at once."""
    prompts: tuple[int, ...] = (512, 2048, 8192)
    answers: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    """`max_new_tokens` to look at."""
    max_length: int | None = None
    """Tokens of prompt and answer together, instead of the two."""
    lengths: TrafficLengths | None = None
    cards: int = 1
    """Cards that share the model by tensor parallelism; memory is counted on one of them."""

    @property
    def hardware(self) -> str:
        """`NVIDIA L4`, or `2 x NVIDIA L4`."""
        return self.card.name if self.cards == 1 else f"{self.cards} x {self.card.name}"


@dataclass(frozen=True, slots=True)
class Cell:
    """Requests that run at once, with one prompt length and one limit."""

    prompt_tokens: int
    max_new_tokens: int
    reserved: int
    """Where prompt and limit are reserved for each."""
    paged: int
    """Where memory grows with the answer, and every answer goes to its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficFit:
    """Requests that run at once with real lengths."""

    lengths: TrafficLengths
    max_new_tokens: int
    paged: int
    reserved: int
    cut_share: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "does it fit?"."""

    fits: bool
    reason: str
    changes: tuple[str, ...] = ()
    """That would make it fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    question: ServingQuestion
    layout: KvLayout
    memory: ServingMemory
    cells: tuple[Cell, ...]
    verdicts: tuple[Verdict, ...]
    traffic: TrafficFit | None
    speed: Speed | None
    """None where something is not known, or what is asked for does not fit."""

    @property
    def fits(self) -> bool:
        """Whether what is asked for fits, in one of the ways that there are."""
        return any(each.fits for each in self.verdicts) or not self.verdicts

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache that fit, where no window bounds what a request keeps."""
        serving = self.question.serving
        return max(0, self.memory.kv_room) // self.layout.bytes_per_token(serving.kv_value_bytes)

    def to_dict(self) -> dict[str, Any]:
        asked, memory = self.question, self.memory
        found: dict[str, Any] = {
            "model": asked.model.name,
            "card": asked.card.name,
            "cards": asked.cards,
            "fits": self.fits,
            "memory_bytes": dict(memory.parts()) | {"kv cache": max(0, memory.kv_room), "device": memory.device},
            "weight_bits": asked.serving.weight_bits,
            "kv_bits": asked.serving.kv_bits,
            "kv_bytes_per_token": self.layout.bytes_per_token(asked.serving.kv_value_bytes),
            "kv_tokens": self.kv_tokens,
            "table": [asdict(cell) for cell in self.cells],
            "verdicts": [asdict(each) for each in self.verdicts],
        }
        if self.traffic is not None:
            of_traffic = ("max_new_tokens", "paged", "reserved", "cut_share")
            prompt, answer = self.traffic.lengths.mean()
            found["traffic"] = {name: getattr(self.traffic, name) for name in of_traffic} | {
                "rows": self.traffic.lengths.rows,
                "skipped": self.traffic.lengths.skipped,
                "mean_prompt_tokens": prompt,
                "mean_answer_tokens": answer,
            }
        if self.speed is not None:
            names = ("prompt_tokens", "first_token", "per_token", "concurrency", "answer_seconds", "answers_per_hour")
            found["at_best"] = {name: getattr(self.speed, name) for name in names}
        return found


def make_plan(question: ServingQuestion) -> ServingPlan:
    """Work out what fits.

    Raises:
        UsageError: a setting outside its range, or a model whose memory cannot be computed.
    """
    layout, memory = _layout(question), _memory(question, question.serving)
    answers = tuple(sorted(set(question.answers)))
    cells = tuple(_cell(question, layout, memory, p, a) for p in sorted(set(question.prompts)) for a in answers)
    traffic = None
    prompt, answer, at_once = float(min(question.prompts)), float(min(answers)), cells[0].paged
    if question.lengths is not None:
        traffic = _traffic(question.lengths, question.serving, layout, max(0, memory.kv_room), max(answers))
        (prompt, answer), at_once = question.lengths.capped(max(answers)).mean(), traffic.paged
    model, serving, card = question.model.config, question.serving, question.card
    verdicts, best = _verdicts(question, layout), None
    at_once = question.concurrency or at_once
    if memory.kv_room > 0 and at_once and all(each.fits for each in verdicts):
        sizes = {"prompt_tokens": prompt, "answer_tokens": answer}
        best = speed(model, serving, card, **sizes, concurrency=at_once, cards=question.cards)
    return ServingPlan(
        question=question,
        layout=layout,
        memory=memory,
        cells=cells,
        verdicts=verdicts,
        traffic=traffic,
        speed=best,
    )


def _layout(question: ServingQuestion) -> KvLayout:
    """What one of the cards keeps."""
    return KvLayout.from_config(share_of_config(question.model.config, question.cards))


def _memory(
    question: ServingQuestion, serving: Serving, card: Card | None = None, *, loaded: bool = False
) -> ServingMemory:
    return ServingMemory.of(
        question.model.config,
        serving,
        (card or question.card).memory,
        used=question.used,
        utilization=1.0 if question.used else question.utilization,
        extra_parameters=question.model.extra_parameters,
        weights_loaded=loaded,
        cards=question.cards,
    )


def _cell(question: ServingQuestion, layout: KvLayout, memory: ServingMemory, prompt: int, answer: int) -> Cell:
    serving, room = question.serving, memory.kv_room
    reserved = max(0, room) // layout.bytes_for(prompt + answer, serving.kv_value_bytes)
    running = concurrent_running(
        TrafficLengths.of([(prompt, answer)]), layout, room, serving.kv_value_bytes, serving.page_size
    )
    return Cell(prompt, answer, reserved, running if reserved else 0)


def _traffic(lengths: TrafficLengths, serving: Serving, layout: KvLayout, room: int, limit: int) -> TrafficFit:
    capped = lengths.capped(limit)
    return TrafficFit(
        lengths=lengths,
        max_new_tokens=limit,
        paged=concurrent_running(capped, layout, room, serving.kv_value_bytes, serving.page_size),
        reserved=concurrent_reserved(capped, layout, room, serving.kv_value_bytes, limit),
        cut_share=lengths.cut_share(limit),
    )


def _verdicts(question: ServingQuestion, layout: KvLayout) -> tuple[Verdict, ...]:
    """Whether what was asked for fits; where something else is on the card, also within its process. Where nothing was
    asked, only that nothing fits is an answer."""
    requests = question.concurrency or 1
    if question.concurrency is None and question.max_length is None and not question.used:
        least = _verdict(question, layout, requests, min(question.prompts) + min(question.answers))
        return () if least.fits else (least,)
    tokens = question.max_length or min(question.prompts) + max(question.answers)
    first = _verdict(question, layout, requests, tokens)
    if not question.used:
        return (first,)
    serving = replace(
        question.serving, step_requests=requests, step_tokens=min(question.serving.step_tokens, min(question.prompts))
    )
    memory = _memory(question, serving, loaded=True)
    need = requests * layout.bytes_for(tokens, serving.kv_value_bytes)
    reason = (
        f"inside the process whose model is loaded: {_requests_take(requests, tokens, need)} of KV cache and "
        f"{human_bytes(memory.activations)} of activations; {human_bytes(memory.device - memory.used)} are free"
    )
    first = replace(first, reason=f"with a copy of the model of its own: {first.reason}")
    inside = Verdict(need <= memory.kv_room, reason)
    return (inside, first) if inside.fits and not first.fits else (first, inside)


def _verdict(question: ServingQuestion, layout: KvLayout, requests: int, tokens: int) -> Verdict:
    context = question.model.config.get("max_position_embeddings")
    if isinstance(context, int) and tokens > context:
        return Verdict(False, f"{tokens:,} tokens are more than the model's context of {context:,}")
    memory = _memory(question, question.serving)
    value, room = question.serving.kv_value_bytes, memory.kv_room
    each = layout.bytes_for(tokens, value)
    if room <= 0:
        parts = " + ".join(f"{name} {human_bytes(size)}" for name, size in memory.parts() if size)
        has = "the card has" if question.cards == 1 else "each card has"
        reason = f"not even the model fits: {parts}, and {has} {human_bytes(memory.device)}"
    elif requests * each <= room:
        needed = _requests_take(requests, tokens, requests * each)
        return Verdict(True, f"{needed} of {human_bytes(room)}, if every one of them is full")
    else:
        reason = f"{kv_shortage(layout, requests, tokens, value, room)}: {room // each} fit at that length"
    return Verdict(False, reason, tuple(_changes(question, layout, requests, tokens)))


def _requests_take(requests: int, tokens: int, size: int) -> str:
    words = "1 request of {} tokens takes" if requests == 1 else "{1} requests of {0} tokens take"
    return f"{words.format(f'{tokens:,}', requests)} {human_bytes(size)}"


def _changes(question: ServingQuestion, layout: KvLayout, requests: int, tokens: int) -> Sequence[str]:
    """What would make it fit, the least painful first: bits, length, another card."""
    serving, changes = question.serving, []

    def fits(other: Serving, card: Card | None = None) -> bool:
        return requests * layout.bytes_for(tokens, other.kv_value_bytes) <= _memory(question, other, card).kv_room

    for words, other in (
        ("an 8-bit KV cache", replace(serving, kv_bits=min(8, serving.kv_bits))),
        ("4-bit weights", replace(serving, weight_bits=4)),
        ("4-bit weights and an 8-bit KV cache", replace(serving, weight_bits=4, kv_bits=min(8, serving.kv_bits))),
    ):
        if other != serving and fits(other):
            changes.append(words)
            break
    room = _memory(question, serving).kv_room // requests
    shorter = bisect_right(range(1, tokens + 1), room, key=lambda n: layout.bytes_for(n, serving.kv_value_bytes))
    if shorter >= 256:
        changes.append(f"at most {shorter:,} tokens per request")
    if requests > 1:
        changes.append("--lengths with your real traffic: most answers are far shorter than their limit")
    if not question.used:
        changes += _more_cards(question, requests, tokens)
        makers = {question.card.name.split()[0], "NVIDIA"}
        known = [each for each in cards().values() if each.name.split()[0] in makers]
        bigger = sorted((each for each in known if fits(serving, each)), key=lambda each: each.memory)
        changes += [f"a card with {human_bytes(bigger[0].memory)}: {bigger[0].name}"] if bigger else []
    return changes


def _more_cards(question: ServingQuestion, requests: int, tokens: int) -> list[str]:
    """The smallest number of the same card, 8 at most, that would do."""
    if question.card.link is None:
        return []
    value = question.serving.kv_value_bytes
    for cards_used in sizes_that_divide(question.model.config):
        if question.cards < cards_used <= _MOST_IN_ONE_MACHINE:
            wider = replace(question, cards=cards_used)
            if requests * _layout(wider).bytes_for(tokens, value) <= _memory(wider, wider.serving).kv_room:
                return [f"{cards_used} of this card: --gpu '{question.card.name} x{cards_used}'"]
    return []


__getattr__ = renamed(__name__, {"tokens_of": "suffice.settings:tokens_of"})
