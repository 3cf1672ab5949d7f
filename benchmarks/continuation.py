"""Is an answer that was continued the answer that would have been given at once? Byte by byte, at temperature 0.

Every prompt is answered twice by the same engine: with the whole cap reserved, and with a first reservation of 16
tokens that is extended while the answer runs (on the local engine), or after which the answer is continued in
another request (on a server). Text, finish and token counts must be the same.

Run:  python benchmarks/continuation.py [--upstream URL] [--answers 1000] [--reservation 16] [--concurrency 1]

The prompts are drawn from the bundled model's own tasks (English and Chinese), a fixed seed, no duplicates. With more
than one answer at a time, rounding can differ with the number of requests in a step and flip a near-tie, with and
without reservations; so pairs that differ are asked again one at a time, and both counts are reported. Loops are not
stopped, so that the answers are as long as they get.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suffice.engines import Engine, Sampling, open_engine
from suffice.prompt import Prompt
from suffice.session import Answer, Request, Session

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from tiny.tasks import draw


def prompts(count: int) -> list[str]:
    """Distinct prompts, the same on every run."""
    generator, found = random.Random(0), dict[str, None]()
    while len(found) < count:
        found[draw(generator).prompt] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt, answered both ways."""

    prompt: str
    whole: Answer
    continued: Answer

    @property
    def same(self) -> bool:
        """Text, reason and tokens are the same."""
        return all(getattr(self.whole, name) == getattr(self.continued, name) for name in ("text", "finish", "usage"))


@dataclass(frozen=True, slots=True)
class Options:
    """The flags that both arms share."""

    max_new_tokens: int
    concurrency: int


async def ask(session: Session, asked: Sequence[str], reservation: int | None, options: Options) -> list[Answer]:
    """All answers, in order."""
    slots = asyncio.Semaphore(options.concurrency)

    async def one(prompt: str) -> Answer:
        request = Request(
            Prompt(({"role": "user", "content": prompt},)),
            max_new_tokens=options.max_new_tokens,
            sampling=Sampling(temperature=0),
            on_runaway="off",
            reservation=reservation or "full",
        )
        async with slots:
            return await session.answer(request)

    return await asyncio.gather(*map(one, asked))


async def compare(engine: Engine, asked: Sequence[str], reservation: int, options: Options) -> list[Pair]:
    """Both arms, one after the other."""
    session = Session(engine)
    began = time.perf_counter()
    whole = await ask(session, asked, None, options)
    between = time.perf_counter()
    continued = await ask(session, asked, reservation, options)
    ended = time.perf_counter()
    at_a_time = f"{options.concurrency} at a time"
    print(f"  at once {between - began:.1f} s, continued {ended - between:.1f} s, {at_a_time}", flush=True)
    return [Pair(*each) for each in zip(asked, whole, continued, strict=True)]


def describe(pairs: Sequence[Pair], reservation: int) -> str:
    """The counts."""
    tokens = [pair.whole.usage.answer_tokens for pair in pairs]
    longer = sum(each > reservation for each in tokens)
    errors = sum("error" in (pair.whole.finish.reason, pair.continued.finish.reason) for pair in pairs)
    return (
        f"  {sum(pair.same for pair in pairs)} of {len(pairs)} pairs identical; {longer} answers longer than "
        f"{reservation} tokens, {sum(tokens)} tokens in all, the longest {max(tokens)}; {errors} errors"
    )


def show(pair: Pair) -> None:
    """Where two answers part."""
    a, b = pair.whole.text, pair.continued.text
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    print(f"  {pair.prompt!r} at character {at}: {a[at : at + 30]!r} / {b[at : at + 30]!r}")
    for name, answer in (("at once  ", pair.whole), ("continued", pair.continued)):
        print(f"    {name} {answer.usage} {answer.finish}")


async def main(options: argparse.Namespace) -> int:
    """Compare, and ask again what differs."""
    asked = prompts(options.answers)
    shared = Options(options.max_new_tokens, options.concurrency)
    async with open_engine(options.model, upstream=options.upstream) as engine:
        print(f"{engine.model_name} {'on ' + options.upstream if options.upstream else '(local)'}")
        pairs = await compare(engine, asked, options.reservation, shared)
        print(describe(pairs, options.reservation))
        differing = [pair for pair in pairs if not pair.same]
        if differing and options.concurrency > 1:
            print("the pairs that differ, once more, one at a time:")
            one_at_a_time = Options(options.max_new_tokens, 1)
            again = await compare(engine, [pair.prompt for pair in differing], options.reservation, one_at_a_time)
            print(describe(again, options.reservation))
            differing = [pair for pair in again if not pair.same]
    for pair in differing:
        show(pair)
    return 1 if differing else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or hub id; on a server the model's name [default: the bundled model]")
    parser.add_argument("--upstream", help="URL of a server that serves the same model")
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--reservation", type=int, default=16, help="tokens")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=1)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
