"""Numbers of tokens as people write them."""

from __future__ import annotations

import pytest

from suffice.numerals import token_count


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2048", 2048),
        ("4_096", 4096),
        ("1,024", 1024),
        ("32k", 32_768),
        ("128K", 131_072),
        ("1.5k", 1536),
        ("0.5 K", 512),
        (" 1M ", 1_048_576),
        ("1.5m", 1_572_864),
        ("0", 0),
    ],
)
def test_a_number_of_tokens(written: str, meant: int) -> None:
    assert token_count(written) == meant


@pytest.mark.parametrize(
    "written",
    ["", "k", "1.5", "-1", "1e3", "1kk", "1,5k", "12,34", "1_0", "3 2k", "32kb", "inf", "nan", "９", "9" * 5000],
)
def test_what_is_no_number_of_tokens(written: str) -> None:
    assert token_count(written) is None
