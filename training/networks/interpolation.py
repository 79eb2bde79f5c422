"""Weights between two checkpoints of one network: what fine-tuning gained, for less of what it forgot.

usage: python -m impasto.training.networks.interpolation BEFORE AFTER --share 0.6 -o FILE [--validation PHOTOS]
BEFORE and AFTER are packages or checkpoints of the same architecture and config, AFTER fine-tuned from BEFORE. Each weight becomes
(1 - share) · before + share · after (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). With --validation a restorer is
judged as its training judges, by the recipe's damage. Judge any other like a checkpoint: impasto export, impasto eval.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from impasto.errors import CheckpointError, ImpastoError, OptionError

from .. import checkpoint, degrade
from ..data.photos import read_photos
from ..validation import restore_psnr


def interpolate(before: Path, after: Path, share: float, output: Path, validation: Path | None = None) -> None:
    """Write the checkpoint between the two, with the recipe of `after` and how it was made.

    share: from 0 to 1, of `after`. validation: folder of clean photos by which a restorer is judged; None leaves its quality open.
    Raises OptionError for another share or a recipe without a damage, CheckpointError where the two are not of one network, and
    OutputError.
    """
    if not 0 <= share <= 1:
        raise OptionError(f"the share is {share}; wanted 0 (the first file's weights) to 1 (the second's)")
    old, new = checkpoint.load(before), checkpoint.load(after)
    names = [(loaded.network.architecture, loaded.network.config) for loaded in (old, new)]
    if names[0] != names[1]:
        raise CheckpointError(
            f"{before} is a {names[0][0]} of {names[0][1]}, and {after} a {names[1][0]} of {names[1][1]}; only weights of one network "
            "can be interpolated"
        )
    earlier = old.network.state_dict()
    new.network.load_state_dict(
        {name: (1 - share) * earlier[name] + share * value for name, value in new.network.state_dict().items()}
    )
    recipe = {**new.recipe, "interpolation": {"with": str(before), "its share": 1 - share}}
    quality = {"validation": _judged(new, validation)} if validation else None
    checkpoint.save_checkpoint(output, new.network, name=new.name, task=new.task, recipe=recipe, quality=quality)


def _judged(loaded: checkpoint.Checkpoint, folder: Path) -> dict[str, float]:
    damage = loaded.recipe.get("degradation")
    if not isinstance(damage, str):
        raise OptionError(f"the recipe of {loaded.name} names no damage; leave --validation out, and use impasto eval")
    photos = read_photos(folder, smallest=1)
    return restore_psnr(loaded.network.eval(), photos.pictures, degrade.parse(damage))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--validation", type=Path, metavar="PHOTOS", help="folder of clean photos to judge a restorer by"
    )
    given = parser.parse_args()
    try:
        interpolate(given.before, given.after, given.share, given.output, given.validation)
    except ImpastoError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
