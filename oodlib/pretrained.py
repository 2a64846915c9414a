"""What ships with the package, laid out as in a run's folder, and how it is made from one: small models of each
preset, and the tables of the digits' run and of the study."""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from oodlib import datasets
from oodlib.conditions import condition, parse
from oodlib.datasets.roles import ID_TEST, EvaluationSet, Role
from oodlib.detection.detector import Detector
from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError, tell
from oodlib.files import read_csv, read_json, write_csv, write_text
from oodlib.marks import MARKS, Mark
from oodlib.outliers.sources import SOURCES
from oodlib.presets import make_settings
from oodlib.reports import study_tables
from oodlib.reports.bootstrap import GROUPS
from oodlib.reports.tables import OOD_ROLES, about_detector, alarm_table, score_table
from oodlib.runs import Run
from oodlib.settings import Data, DenoiserModel, Experiment, Settings, Shared

ABOUT = (Experiment, Data)  # what a run is of
FOLDER = Path(__file__).parent / "weights"
STUDY = "study"  # the run of which tables ship and no models
# By the folder that they ship in: make's name for the run that they are of, and the files that notebooks 5 and 6 save.
RESULTS = {"digits": ("demo", ("results.csv", "false_alarms.csv")), STUDY: ("study", study_tables.FILES)}
SHIPPED_BANK_SIZE = 500  # training images for the score knn: all 866 would be a tenth of what ships
SHIPPED_SCORES = 1000  # images of a set at most whose scores the explorer's histograms show


def shipped(preset: str) -> Run:
    """The models that ship for a preset: a denoiser and, where they are there, detectors without and with outliers.

    Raises:
        InputError: None ship for this preset, or a file is not the one that its checksum describes.
    """
    folder = FOLDER / preset
    if not (folder / "denoiser").is_dir():
        raise InputError(
            f"no models ship for preset {preset!r}; train them with notebook 01_train_ddpm: "
            f"papermill notebooks/01_train_ddpm.ipynb out.ipynb -p preset {preset}"
        )
    _check_sums(folder)
    return Run(str(folder))


def _check_sums(folder: Path) -> None:
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        checksum, name = line.split("  ", 1)
        if not (folder / name).is_file() or _sha256(folder / name) != checksum:
            raise InputError(
                f"{name} of what ships for {folder.name} is missing or damaged; install oodlib again"
            )


def check_shipped_denoiser(settings: Settings) -> None:
    """Raise `InputError` unless the denoiser that ships for the preset is one of these images and settings, as
    `denoiser_steps = 0` asks for."""
    about = read_json(shipped(settings.preset).denoiser / "denoiser.json")
    own = {"id_data": make_settings(preset=settings.preset).id_data, "image_shape": about["image_shape"]}
    own |= {name: about[name] for name in set(DenoiserModel.model_fields) - set(Shared.model_fields)}
    values = settings.values()
    for name in sorted(own):
        if values[name] != own[name]:
            raise InputError(
                f"denoiser_steps = 0 takes the denoiser that ships for preset {settings.preset}, which has {name} = "
                f"{own[name]!r}, and here {name} = {values[name]!r}; choose that, or denoiser_steps above 0"
            )
    if "early_denoiser" in SOURCES[settings.outliers].takes:
        raise InputError(
            f"outliers = {settings.outliers!r} are drawn by a denoiser that stopped early, and denoiser_steps = 0 "
            "takes one that ships; choose another source, or denoiser_steps above 0"
        )


def find(settings: Experiment) -> Run:
    """The run to take a trained denoiser from: the one named, or, until the preset's own run has one, what ships.

    Raises:
        InputError: There is none; the message names the notebook that trains one.
    """
    own = Run(settings.run, settings)
    if settings.run == settings.preset and not (own.denoiser / "settings.json").is_file():
        return shipped(settings.preset)
    own.require(own.denoiser / "settings.json", "01_train_ddpm")
    return own


def finished(settings: Experiment) -> Run:
    """The run that the settings name, to be looked at or, as long as it has no detectors, the results that ship for it.

    The latter are those of a run of this name, if they are of these images; a line says so.
    """
    own = Run(settings.run, settings)
    if own.scored() or settings.run not in RESULTS:
        return own
    ships = Run(settings.run, settings, shipped=FOLDER / settings.run)
    if settings.values(*ABOUT) != make_settings(run=settings.run).values(*ABOUT):
        return own
    _check_sums(ships.folder)
    tell(
        f"{own} has no detectors yet: these are the results that ship; make {RESULTS[settings.run][0]} makes them"
    )
    return ships


def build(run: Run, folder: Path) -> None:
    """Write a run's denoiser and two detectors of its head, without outliers and with its own, to `folder` in 16 bits,
    with checksums. A denoiser that ships already stays as it is.

    The scores, which keep at most `SHIPPED_BANK_SIZE` training images, are fitted to the rounded weights.
    """
    chosen = make_settings(**{**run.experiment(), "run": run.name})
    sources = {
        outliers: run.detector(chosen.head, outliers, chosen.seed) for outliers in ("none", condition(chosen))
    }
    denoiser = run.mark(run.denoiser / MARKS[0], "01_train_ddpm")
    results = _results(run, folder)
    for outliers, source in sources.items():
        run.require(source / "settings.json", "03_train_detector", **parse(outliers))
    splits = datasets.id_splits(chosen)
    train, val, _ = splits
    sets = datasets.evaluation_sets(chosen, splits)
    ship = Run(str(folder))
    is_trained = denoiser.settings["denoiser_steps"] > 0
    if not is_trained and not _same(run.denoiser, ship.denoiser):
        raise InputError(f"the denoiser of {run} is not the one that ships; delete the run and make it again")

    shutil.rmtree(folder if is_trained else ship.detectors, ignore_errors=True)
    if is_trained:
        Denoiser.load(run.denoiser).save(ship.denoiser)
        shutil.copyfile(run.denoiser / "history.csv", ship.denoiser / "history.csv")
        _finish(run.denoiser, ship.denoiser, "denoiser")
    for outliers, source in sources.items():
        target = ship.detector(chosen.head, outliers, chosen.seed)
        detector = Detector.load(source)
        _round(detector)
        detector.fit_scores(train.images, train.labels, val.images, chosen.tpr, SHIPPED_BANK_SIZE)
        detector.save(target)
        about = about_detector(chosen, chosen.head, outliers, detector.own_score)
        _write_own_scores(target, detector, sets, about)
        _finish(source, target, "detector")

    _write_results(results, folder)


def _results(run: Run, folder: Path) -> list[Path]:
    """The files of a finished run that ship in a folder beside models, if any do."""
    notebook = "06_which_outliers" if folder.name == STUDY else "05_compare"
    return [run.require(run.folder / name, notebook) for name in RESULTS.get(folder.name, ("", ()))[1]]


def _write_results(results: Sequence[Path], folder: Path) -> None:
    """Copy them, and write the checksums of all in the folder. Of a table by sets only the rows of groups of sets ship,
    which a notebook shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in results:
        if path.suffix != ".csv":
            shutil.copyfile(path, folder / path.name)
            continue
        table = read_csv(path)
        write_csv(
            folder / path.name, table[table["set"].isin([*GROUPS, ID_TEST])] if "set" in table else table
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / "SHA256SUMS", "".join(sums))


def _write_own_scores(
    folder: Path, detector: Detector, sets: Sequence[EvaluationSet], about: dict[str, object]
) -> None:
    """Write what notebook 4 shows of a detector: its own score of ID and OOD images, which the explorer draws too, and
    its false alarms."""
    own = detector.own_score
    scores = score_table(sets, detector.classify, detector.class_names, images_per_set=SHIPPED_SCORES)
    alarms = alarm_table(scores, {own: detector.thresholds[own]})
    is_drawn = scores["role"].isin([Role.ID, *OOD_ROLES])
    columns = ["set", "title", "role", own]
    write_csv(folder / "scores.csv", scores.loc[is_drawn, columns].round(5).assign(**about))
    write_csv(folder / "alarms.csv", alarms.assign(**about))


def _same(*folders: Path) -> bool:
    return len({_sha256(folder / "denoiser.safetensors") for folder in folders}) == 1


@torch.no_grad()
def _round(module: nn.Module) -> None:
    """Round float32 weights to half precision."""
    for tensor in module.state_dict().values():
        if tensor.dtype == torch.float32:
            tensor.copy_(tensor.half())


def _finish(source: Path, target: Path, network: str) -> None:
    """Store a network's rounded weights as half precision, and mark the copy with the settings of its source."""
    path = target / f"{network}.safetensors"
    save_file({n: t.half() if t.dtype == torch.float32 else t for n, t in load_file(path).items()}, path)
    for mark in MARKS:
        if (source / mark).is_file():
            made = Mark.read(source / mark, "make it again with the notebook that made it")
            files = [file for file in made.files if (target / file).is_file()]
            Mark.of(target, files, made.settings).write(target / mark)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(names: Sequence[str]) -> None:
    """Ship models and tables of these runs, each in place of those of its preset, and of the study the tables alone."""
    for name in names:
        run = Run(name)
        if name == STUDY:
            _write_results(_results(run, FOLDER / name), FOLDER / name)
            continue
        about = read_json(run.require(run.about, "01_train_ddpm"))
        usual = make_settings(preset=about["preset"]).values(Data)
        if about["profile"] == "smoke" or any(about[part] != value for part, value in usual.items()):
            raise InputError(
                f"{run} is not of the images of preset {about['preset']}, or a smoke run; name another"
            )
        build(run, FOLDER / about["preset"])


if __name__ == "__main__":
    main(sys.argv[1:])
