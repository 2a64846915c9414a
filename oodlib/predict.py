"""A trained detector on a folder of one's own pictures, from the command line.

    python -m oodlib.predict DETECTOR_FOLDER PICTURES_FOLDER [--score NAME] [--all-scores] [--csv FILE]
                             [--network MODULE:FUNCTION]

The table goes to stdout, or as CSV to a file; what is said about it goes to stderr.

A network of one's own comes from a function of one's own. Nothing is unpickled, and features, which most scores need,
can be taken of a module alone: TorchScript and ONNX files do not show them.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from oodlib.detection.detector import UNFITTED, Detector
from oodlib.detection.metrics import is_ood
from oodlib.detection.scores import SCORES
from oodlib.errors import InputError, choice, tell
from oodlib.files import shown, write_csv
from oodlib.pictures import Notes, picture_files

BATCH_SIZE = 128  # pictures in memory at once


def predict_folder(
    detector: Detector, folder: Path, score: str | None = None, all_scores: bool = False
) -> pd.DataFrame:
    """Class, score and verdict of every picture at any depth of a folder, in the order of their names.

    A picture that cannot be read is named on stderr and left out; so are, by reason, all files that are none.

    Args:
        score: A name in `scores.SCORES`; None for the head's own.
        all_scores: Whether every score has a column too.

    Returns:
        Columns `file` (its path in the folder), `class` (a name), `score` (larger = more in-distribution),
        `verdict` (`ID` or `OOD`) and, if asked, one for each score by its name.

    Raises:
        InputError: The score is not known, the detector has no threshold, or there is no picture that can be read.
    """
    choice("score", score, (None, *SCORES))
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with pictures")
    name = score or detector.own_score
    if name not in detector.thresholds:
        raise InputError(UNFITTED)
    notes = Notes(folder)
    files = picture_files(folder, notes)
    tables = []
    for names, images in _batches(files, notes, detector):
        probabilities, scores = detector.classify(images)
        columns = {
            "file": names,
            "class": np.array(detector.class_names)[probabilities.argmax(-1)],
            "score": scores[name],
            "verdict": np.where(is_ood(scores[name], detector.thresholds[name]), "OOD", "ID"),
        }
        tables.append(pd.DataFrame(columns | (scores if all_scores else {})))
    for line in notes.lines():
        print(line, file=sys.stderr)
    if not tables:
        raise InputError(
            f"none of the {len(files)} pictures in {shown(folder)} can be read"
            if files
            else f"folder {shown(folder)} holds no pictures"
        )
    return pd.concat(tables, ignore_index=True)


def _batches(files: list[Path], notes: Notes, detector: Detector) -> Iterator[tuple[list[str], Any]]:
    """Names and images, as the detector takes them, of the files that can be read."""
    for start in range(0, len(files), BATCH_SIZE):
        names, images = [], []
        for file in files[start : start + BATCH_SIZE]:
            name = shown(file.relative_to(notes.folder))
            try:
                images.append(detector.read(file, notes))
            except InputError as error:
                print(f"skipped {name}: {error.__cause__ or error}", file=sys.stderr)
            else:
                names.append(name)
        if len({image.shape for image in images}) > 1:
            raise InputError("the transform gives images of several shapes; crop or resize in it")
        if images:
            yield names, torch.stack(images) if isinstance(images[0], torch.Tensor) else np.stack(images)


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe or a device takes no other file's name
        table.to_csv(path, index=False, float_format="%.9g")
    else:
        write_csv(path.resolve(), table)  # a link goes on to lead to it


def _network(function: str | None) -> tuple[nn.Module | None, Any]:
    """The network that a function makes, `MODULE:FUNCTION`, and its transform where it gives that too."""
    if function is None:
        return None, None
    module, _, name = function.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), name)()
    except Exception as error:  # whatever the user's own code raises
        raise InputError(
            f"--network {function}: {error}; expected MODULE:FUNCTION, importable from here"
        ) from error
    network, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module):
        raise InputError(f"--network {function} gives a {type(network).__name__}, expected a torch module")
    return network, transform


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code is 0, 1 for bad input (one line on stderr says what) and 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="oodlib-predict",
        description="What a trained detector says of your own pictures: class, score, ID or OOD.",
    )
    parser.add_argument(
        "detector", metavar="DETECTOR_FOLDER", type=Path, help="holds detector.json or classifier.json"
    )
    parser.add_argument("pictures", metavar="PICTURES_FOLDER", type=Path, help="pictures at any depth")
    parser.add_argument("--score", metavar="NAME", help=f"{', '.join(SCORES)}; default: the head's own")
    parser.add_argument("--all-scores", action="store_true", help="a column for every score too")
    parser.add_argument(
        "--network",
        metavar="MODULE:FUNCTION",
        help="of a detector made from a classifier: a function without arguments that gives the network, or the "
        "network and its transform",
    )
    parser.add_argument("--csv", metavar="FILE", help="write CSV to a file, or with - to stdout")
    options = parser.parse_args(arguments)
    try:
        if options.csv and Path(options.csv).is_dir():
            raise InputError(f"{options.csv} is a folder; give a file for the table")
        with redirect_stdout(sys.stderr):  # the table has stdout to itself
            network, transform = _network(options.network)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            detector = Detector.load(options.detector, device, network=network, transform=transform)
        table = predict_folder(detector, options.pictures, options.score, options.all_scores)
        if options.csv is None:
            shown = table.copy()
            for column in shown.columns.intersection(["score", *SCORES]):
                shown[column] = shown[column].map("{:.6g}".format)
            aligned = ("left", "left", "right", "left", *["right"] * (len(shown.columns) - 4))
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
    score = options.score or detector.own_score
    print(
        f"score {score}, threshold {detector.thresholds[score]:.6g}: "
        f"{(table['verdict'] == 'OOD').sum()} of {len(table)} pictures are OOD",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
