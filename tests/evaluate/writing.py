"""Put evaluations into a pool, one after another, and say which of them are acknowledged: a script of its own.

Its scores are those of ``scores_of``, so that whoever reads them later knows them.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from hwdse.errors import HwdseError
from hwdse.evaluate import Key, Pool, Scores, line, postgres

SAMPLES = 2000


def key_of(i: int) -> Key:
    return Key("n", "d", "s", "r", "top1", f"W4A8 W{i}A8")


def scores_of(i: int) -> Scores:
    return Scores(np.random.default_rng(i).integers(0, 2, SAMPLES).astype(np.float32), float(i))


def warn(sentence: str) -> None:
    sys.stderr.write(f"note: {sentence}\n")
    sys.stderr.flush()


def main() -> None:
    place, first, last, *changes = sys.argv[1:]
    for change in changes:
        name, value = change.split("=")
        if name == "pauses":
            postgres.PAUSES_SECONDS = tuple(map(float, value.split(",")))
        elif name == "answer":
            line.ANSWER_SECONDS = float(value)
        elif name == "bytes":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
    try:
        pool = Pool(place if "://" in place else Path(place), warn=warn)
        for i in range(int(first), int(last)):
            if pool.get(key_of(i)) is None:
                pool.put(key_of(i), scores_of(i))
            sys.stdout.write(f"{i}\n")
            sys.stdout.flush()
        pool.close()
    except HwdseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
