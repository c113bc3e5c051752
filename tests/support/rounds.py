"""Long trials: `make test` runs a fifth of the stated rounds, `make drill` all of them. The seed is printed; SEED= repeats it."""

import os
import random


def rounds(stated: int) -> int:
    return stated if os.environ.get("XZEPR_ROUNDS") == "all" else max(1, stated // 5)


def seeded(what: str) -> random.Random:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"{what}: SEED={seed}")
    return random.Random(seed)
