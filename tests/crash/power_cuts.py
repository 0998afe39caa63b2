"""Randomised power cuts: `python -m tests.crash.power_cuts --cuts 10000 --seed 1`.

A story is a node with a few small objects, told by one seed: objects come, come again or changed, are packed, deleted and compacted,
calls to the disk fail, the node stops, is killed, loses its power or its index. After each end it starts again, and has to have what
it said it has. The whole run prints its figures; a failure prints its seed, and `--seed N --stories 1` tells that story again.
"""

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.crash.wide_world import WideWorld
from tests.crash.world import NUMBERS, SERIES, STUDIES, World

LIVES = 10
CALLS_MAX = 150


def tell(seed: int, folder: Path, counts: Counter[str], kind: type[World] = World) -> World:
    """One story; raises AssertionError where something does not hold."""
    rng = random.Random(seed)
    world = kind(folder / "data", rng)
    try:
        for _ in range(LIVES):
            _live(world)
            if rng.random() < 0.1:
                world.lose_index()
            if isinstance(world, WideWorld) and rng.random() < 0.1:
                world.until_cut(rng.randrange(CALLS_MAX), world.repair, power=rng.random() < 0.5)
            world.start()
            world.check()
            world.stop()
        world.check_at_rest()
        if rng.random() < 0.3 and kind is World:
            world.check_one_bit()
            world.check_at_rest()
            counts["flipped bits"] += 1
    except BaseException as error:
        error.add_note(f"seed {seed}: " + "; ".join(world.log[-12:]))
        raise
    finally:
        world.stop()
    counts.update(
        {
            "power cuts": world.cuts,
            "kills": world.kills,
            "failed calls": world.disk.failures,
            "acknowledged": len(world.told.kept) + len(world.told.deleted),
            "deleted": len(world.told.deleted),
        }
    )
    return world


def _live(world: World) -> None:
    rng = world.rng
    power = rng.random() < 0.85

    def live() -> None:
        world.start()
        if rng.random() < 0.25:
            world.fail_some()
        for _ in range(rng.randint(2, 10)):
            world.tolerant(lambda: _do_something(world))
        world.disk.forget_failures()
        if rng.random() < 0.2:
            world.stop()
        else:
            world.die(power=power)

    world.until_cut(rng.randrange(CALLS_MAX), live, power=power)


def _do_something(world: World) -> None:
    rng, told = world.rng, world.told
    if isinstance(world, WideWorld) and rng.random() < 0.25:
        world.do_more()
        return
    choice = rng.random()
    if choice < 0.6:
        study, series, number = rng.randint(1, STUDIES), rng.randint(1, SERIES), rng.randint(1, NUMBERS)
        world.send(study, series, number, version=int(rng.random() < 0.15), large=rng.random() < 0.15)
    elif choice < 0.8 or not told.live():
        world.pack()
    elif choice < 0.88:
        world.compact()
    else:
        world.delete(rng.choice(told.live()))


def run(seed: int, stories: int, cuts: int, seconds: float, kind: type[World] = World) -> Counter[str]:
    """Stories from this seed on, until there were so many, or so many cuts, or the time is over."""
    memory = Path("/dev/shm")
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    logging.disable(logging.CRITICAL)
    try:
        while counts["stories"] < stories and counts["power cuts"] < cuts and time.monotonic() < deadline:
            folder = Path(tempfile.mkdtemp(prefix="power-cuts-", dir=memory if memory.is_dir() else None))
            try:
                tell(seed + counts["stories"], folder, counts, kind)
            finally:
                shutil.rmtree(folder)
            counts["stories"] += 1
    finally:
        logging.disable(logging.NOTSET)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the first story; each further one has the next")
    parser.add_argument("--stories", type=int, default=1 << 30)
    parser.add_argument("--cuts", type=int, default=1 << 30)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--wide", action="store_true", help="two processes, a tier that goes away, packs of some series, mirrors, repair")
    options = parser.parse_args()
    started = time.monotonic()
    counts = run(options.seed, options.stories, options.cuts, options.seconds, WideWorld if options.wide else World)
    took = time.monotonic() - started
    last = options.seed + counts["stories"] - 1
    print(f"seeds {options.seed} to {last}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"0 acknowledged objects lost, 0 wrong bytes, 0 deleted objects back; {counts['power cuts'] / took:.1f} power cuts a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
