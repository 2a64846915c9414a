"""A trained detector on a folder of one's own pictures, from the command line.

    python -m oodlib.predict DETECTOR_FOLDER PICTURES_FOLDER [--score NAME] [--csv FILE]

The table goes to stdout, or as CSV to a file; what is said about it goes to stderr.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from oodlib.detection.detector import Detector
from oodlib.detection.scores import SCORES
from oodlib.errors import InputError, choice, tell
from oodlib.files import shown, write_csv
from oodlib.pictures import Notes, picture_files, read_picture

BATCH_SIZE = 512  # pictures in memory at once


def predict_folder(detector: Detector, folder: Path, score: str | None = None) -> pd.DataFrame:
    """Class, score and verdict of every picture at any depth of a folder, in the order of their names.

    A picture that cannot be read is named on stderr and left out; so are, by reason, all files that are none.

    Args:
        score: A name in `scores.SCORES`; None for the head's own.

    Returns:
        Columns `file` (its path in the folder), `class` (a name), `score` (larger = more in-distribution) and
        `verdict` (`ID` or `OOD`).

    Raises:
        InputError: The score is not known, the detector has no threshold, or there is no picture that can be read.
    """
    choice("score", score, (None, *SCORES))
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with pictures")
    notes = Notes(folder)
    files = picture_files(folder, notes)
    tables = []
    for names, images in _batches(files, notes, detector):
        prediction = detector.predict(images, score)
        columns = {
            "file": names,
            "class": np.array(detector.class_names)[prediction.classes],
            "score": prediction.scores,
            "verdict": np.where(prediction.is_ood, "OOD", "ID"),
        }
        tables.append(pd.DataFrame(columns))
    for line in notes.lines():
        print(line, file=sys.stderr)
    if not tables:
        raise InputError(
            f"none of the {len(files)} pictures in {shown(folder)} can be read"
            if files
            else f"folder {shown(folder)} holds no pictures"
        )
    return pd.concat(tables, ignore_index=True)


def _batches(files: list[Path], notes: Notes, detector: Detector) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and uint8 images (N, H, W, C) of the files that can be read."""
    for start in range(0, len(files), BATCH_SIZE):
        names, images = [], []
        for file in files[start : start + BATCH_SIZE]:
            name = shown(file.relative_to(notes.folder))
            try:
                images.append(read_picture(file, detector.image_shape, detector.background, notes))
            except InputError as error:
                print(f"skipped {name}: {error.__cause__}", file=sys.stderr)
            else:
                names.append(name)
        if images:
            yield names, np.stack(images)


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe or a device takes no other file's name
        table.to_csv(path, index=False, float_format="%.9g")
    else:
        write_csv(path.resolve(), table)  # a link goes on to lead to it


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code is 0, 1 for bad input (one line on stderr says what) and 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="oodlib-predict",
        description="What a trained detector says of your own pictures: class, score, ID or OOD.",
    )
    parser.add_argument("detector", metavar="DETECTOR_FOLDER", type=Path, help="holds detector.json")
    parser.add_argument("pictures", metavar="PICTURES_FOLDER", type=Path, help="pictures at any depth")
    parser.add_argument("--score", metavar="NAME", help=f"{', '.join(SCORES)}; default: the head's own")
    parser.add_argument("--csv", metavar="FILE", help="write CSV to a file, or with - to stdout")
    options = parser.parse_args(arguments)
    try:
        if options.csv and Path(options.csv).is_dir():
            raise InputError(f"{options.csv} is a folder; give a file for the table")
        detector = Detector.load(options.detector, "cuda" if torch.cuda.is_available() else "cpu")
        table = predict_folder(detector, options.pictures, options.score)
        if options.csv is None:
            shown = table.assign(score=table["score"].map("{:.6g}".format))
            aligned = ("left", "left", "right", "left")
            tell(shown.to_markdown(index=False, tablefmt="plain", disable_numparse=True, colalign=aligned))
        elif options.csv == "-":
            if isinstance(sys.stdout, io.TextIOWrapper):  # CSV is UTF-8, whatever the terminal takes
                sys.stdout.reconfigure(encoding="utf-8")
            print(table.to_csv(index=False, float_format="%.9g"), end="")
        else:
            _write(table, Path(options.csv))
    except (InputError, OSError) as error:
        print(f"oodlib-predict: {error}", file=sys.stderr)
        return 1
    score = options.score or detector.head.default_score
    print(
        f"score {score}, threshold {detector.thresholds[score]:.6g}: "
        f"{(table['verdict'] == 'OOD').sum()} of {len(table)} pictures are OOD",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
