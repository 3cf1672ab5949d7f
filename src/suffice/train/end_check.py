"""Answers a few validation prompts, to see whether the adapter still ends its answers by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any

from suffice.budget import Budgeter, EngineInfo
from suffice.budget.estimators import Keywords
from suffice.budget.length_profile import LengthProfile, ProfileEstimator
from suffice.errors import PromptTooLongError
from suffice.train.base_model import BaseModel
from suffice.train.loss_mask import Encoder
from suffice.train.rows import TrainingRow

__all__ = ["EndCheck"]

_TOO_LONG = 2  # times the longest training answer: an answer beyond that has not learned to end
_SPARE_TOKENS = 64  # for training sets of very short answers
_WORRY = 0.1  # a fall of the share by this much is worth a warning: one answer in ten
_ADVICE = "a lower learning rate, fewer epochs, or an earlier checkpoint may help; look at how the training answers end"


class EndCheck:
    """Answers the prompts of `rows` at each evaluation, and remembers the best share of the answers that ended.

    Budgets come from the profile of the training rows' answer lengths, as they will at inference.
    """

    def __init__(self, base: BaseModel, rows: Sequence[TrainingRow], profile: LengthProfile) -> None:
        budgeter = Budgeter.load().with_estimator(ProfileEstimator(profile), before=Keywords)
        encoder = Encoder(base.tokenizer, base.end_ids)
        self._end_ids, self._padding = base.end_ids, base.tokenizer.pad_token_id
        self._prompts: list[tuple[list[int], int]] = []
        self._best: float | None = None
        most = _TOO_LONG * profile.overall.longest + _SPARE_TOKENS
        for row in rows:
            ids = encoder.prompt_ids(row.messages)
            engine = EngineInfo(context_tokens=base.context_tokens, prompt_tokens=len(ids))
            with suppress(PromptTooLongError):
                budget = budgeter.decide(row.messages, engine=engine)
                self._prompts.append((ids, min(budget.max_new_tokens, most)))

    def measure(self, model: Any) -> dict[str, float]:
        """Answer greedily: `eval_ended_share` (0-1) and `eval_median_answer_tokens`; {} when there are no prompts."""
        if not self._prompts:
            return {}
        was_training = model.training
        model.eval()
        try:
            answers = self._answers(model)
        finally:
            model.train(was_training)
        ended = sum(does_end for _, does_end in answers) / len(answers)
        return {"eval_ended_share": ended, "eval_median_answer_tokens": float(median(n for n, _ in answers))}

    def warning(self, metrics: dict[str, float]) -> str | None:
        """A line for the user when fewer answers end by themselves than before."""
        share = metrics.get("eval_ended_share")
        if share is None:
            return None
        before, self._best = self._best, max(self._best or 0.0, share)
        if before is not None and share < before - _WORRY:
            return f"only {share:.0%} of the validation answers end by themselves, {before:.0%} did before: {_ADVICE}"
        if before is None and share < 1 - _WORRY:
            return f"only {share:.0%} of the validation answers end by themselves so far; watch this number"
        return None

    def _answers(self, model: Any) -> list[tuple[int, bool]]:
        """(tokens, ended by itself) of each answer. They are few, so they are one batch, padded on the left."""
        import torch

        prompts, caps = [ids for ids, _ in self._prompts], [cap for _, cap in self._prompts]
        longest = max(map(len, prompts))
        filler = self._end_ids[0] if self._padding is None else self._padding
        ids = torch.tensor([[filler] * (longest - len(row)) + row for row in prompts], device=model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(caps),
                do_sample=False,
                eos_token_id=list(self._end_ids),
                pad_token_id=filler,
                use_cache=True,
            )
        return [self._ending(row, cap) for row, cap in zip(output[:, longest:].tolist(), caps, strict=True)]

    def _ending(self, answer: list[int], cap: int) -> tuple[int, bool]:
        end = next((place for place, token in enumerate(answer[:cap]) if token in self._end_ids), None)
        return (min(len(answer), cap), False) if end is None else (end + 1, True)
