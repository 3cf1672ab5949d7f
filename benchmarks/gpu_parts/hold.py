"""A process that takes the memory of the first CUDA device, but for so many GiB, until its standard input ends.

Where less than that is free, it takes none.

Run:  python gpu_parts/hold.py 22.5
"""

from __future__ import annotations

import sys

import torch

_GIB = 2**30


def main(free: float) -> None:
    """Take it, and say `held`."""
    torch.empty(1, device="cuda")  # the context takes memory, too
    there, _ = torch.cuda.mem_get_info()
    kept = torch.empty(max(0, round(there - free * _GIB)), dtype=torch.uint8, device="cuda")
    print(f"held {kept.nbytes / _GIB:.1f} GiB", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(float(sys.argv[1]))
