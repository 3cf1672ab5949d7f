"""What the name of a quantised model says: which model it was, and how many bits a weight takes."""

from __future__ import annotations

import re

from suffice.errors import ModelError

__all__ = ["GGUF_BITS", "GROUPED_4_BIT", "MXFP4_BITS", "read_quantised_name"]

GROUPED_4_BIT = 4 + (16 + 4) / 128
"""Bits per weight of GPTQ and AWQ: groups of 128 share a scale of 16 bits and a zero point of 4."""
MXFP4_BITS = 4 + 8 / 32
"""Bits per weight of MXFP4: 32 share a scale of 8 bits (OCP Microscaling Formats, version 1.0, section 5)."""

GGUF_BITS = {
    "IQ1_S": 2.0042,
    "IQ1_M": 2.1460,
    "IQ2_XXS": 2.3824,
    "IQ2_XS": 2.5882,
    "IQ2_S": 2.7403,
    "IQ2_M": 2.9294,
    "IQ3_XXS": 3.2548,
    "IQ3_XS": 3.4977,
    "IQ3_S": 3.6606,
    "IQ3_M": 3.7628,
    "IQ4_XS": 4.4597,
    "IQ4_NL": 4.6818,
    "Q2_K_S": 2.9697,
    "Q2_K": 3.1593,
    "Q3_K_S": 3.6429,
    "Q3_K_L": 4.2979,
    "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944,
    "Q5_K_S": 5.5704,
    "Q5_K_M": 5.7036,
    "Q6_K": 6.5633,
    "Q8_0": 8.5008,
}
"""Mean bits of all weights of Llama 3.1 8B, embeddings included: llama.cpp, tools/quantize/README.md. Other models
differ by a few per cent, since their embeddings are a larger or smaller part."""

_ENDINGS: tuple[tuple[str, float], ...] = (
    (r"bnb-(?:nf)?4-?bit|nf4", 4),
    (r"awq(?:-int4|-4bit)?|(?:gptq|autoround)?-?int4|gptq(?:-4bit)?|quantized\.w4a16|w4a16", GROUPED_4_BIT),
    (r"(?:gptq-)?int8|quantized\.w8a(?:8|16)|w8a8|fp8(?:-dynamic|-block|-kv)?|bnb-8bit", 8),
    ("mxfp4", MXFP4_BITS),
)


def read_quantised_name(name: str) -> tuple[str, float | None]:
    """The name without what says how it is quantised, and the bits per weight; None where it says nothing of that.

    `Qwen2.5-7B-Instruct-AWQ`, `...-GPTQ-Int4`, `...-FP8`, `...-GGUF:Q4_K_M`, `...-q4_k_m.gguf`.

    Raises:
        ModelError: a GGUF whose quantisation is not said, or not known.
    """
    short = re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)
    by_length = sorted(GGUF_BITS, key=len, reverse=True)
    if found := re.fullmatch(rf"(.+?)(?:-gguf)?[-.:_/]({'|'.join(by_length)})", short, re.IGNORECASE):
        return found[1], GGUF_BITS[found[2].upper()]
    if short != name or re.search(r"-gguf\b", name, re.IGNORECASE):
        raise ModelError(
            f"{name}: write which file it is, as in {re.split('[:]', short)[0]}:Q4_K_M; known are "
            f"{', '.join(GGUF_BITS)}"
        )
    for ending, bits in _ENDINGS:
        if found := re.fullmatch(rf"(.+?)[-_.](?:{ending})", name, re.IGNORECASE):
            return found[1], bits
    return name, None
