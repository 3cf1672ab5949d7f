"""Runs `suffice` as on a machine whose main memory has so many bytes free.

Run:  python -m gpu_parts.pretend BYTES infer --prompt hi
"""

from __future__ import annotations

import sys
from typing import Any

import psutil


def main(available: int, arguments: list[str]) -> None:
    """Replace what psutil says of the machine, and run the command."""
    from suffice.cli.main import main as suffice

    real = psutil.virtual_memory

    def pretended() -> Any:
        return real()._replace(available=available)

    psutil.virtual_memory = pretended
    sys.argv = ["suffice", *arguments]
    suffice()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
