"""Long trials: `make test` runs a part of the stated rounds, a fifth unless said otherwise, `make drill` all. The seed is printed; SEED= repeats it."""

import os
import random


def rounds(stated: int, part: int = 5) -> int:
    """XZEPR_ROUNDS: `all`, or a number of rounds to try something with."""
    wanted = os.environ.get("XZEPR_ROUNDS", "")
    if wanted.isdigit():
        return min(int(wanted), stated)
    return stated if wanted == "all" else max(1, stated // part)


def seeded(what: str) -> random.Random:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"{what}: SEED={seed}")
    return random.Random(seed)
