"""A notebook's parameters: checked all at once, joined with what the run says of itself, and shown as a table."""

import ast
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from oodlib import settings
from oodlib.checks import unknown
from oodlib.errors import InputError
from oodlib.presets import make_settings
from oodlib.runs import Run
from oodlib.settings import Data, Experiment, Settings

if TYPE_CHECKING:
    import pandas as pd


def _names(*classes: type[settings.StepSettings], but: Collection[str] = ()) -> frozenset[str]:
    return frozenset().union(*(cls.model_fields for cls in (Experiment, *classes))) - set(but)


# What can be set in each notebook; in notebook 3 also the options of its head.
NOTEBOOKS: dict[str, frozenset[str]] = {
    "00_explore": _names(settings.Sampling, settings.Mixing)
    | {"head", "seed", "outliers", "degrade", "noise_levels"},
    "01_train_ddpm": _names(settings.Data, settings.DenoiserModel, settings.DenoiserTraining),
    "02_label_mixup": _names(
        *(settings.Data, settings.Shared, settings.Sampling, settings.Pool, settings.CommitteeTraining)
    ),
    "03_train_detector": _names(
        *(settings.Data, settings.DetectorModel, settings.DetectorTraining, settings.Scoring),
        but=("seed", "images_per_set"),
    )
    | {"seeds"},
    "04_score_distributions": _names() | {"heads", "conditions", "seed"},
    "05_compare": _names(),
    "06_which_outliers": _names(),
    "07_denoiser_scores": _names(settings.Data, settings.Scoring) | {"seed"},
    "08_your_own_network": _names(settings.Data) | {"seed", "tpr"},
    "09_heads": _names(settings.Data) | {"seed", "epochs"},
}


def parameters(namespace: dict[str, Any], notebook: str) -> Settings:
    """Checked settings from a notebook's `globals()`, called in the cell after its parameters.

    Where the run's folder says of what it is (`Run.about`), that takes the place of the preset's values. Papermill
    writes its parameters into a cell of their own, and only warns of names that it does not find in the notebook's;
    here those that cannot be set are an error, and so are names misspelt by hand.

    Args:
        notebook: A name in `NOTEBOOKS`.

    Raises:
        InputError: A name is not known, or a value is wrong or is not that of the run.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.strip()]
    by_hand = [names for cell in cells if "preset" in (names := _assigned(cell))][-1:]
    injected = [_assigned(cell) for cell in cells if re.match(r"#\s*Parameters\b", cell)][-1:]
    names = {name for names in (*by_hand, *injected) for name in names}
    allowed = NOTEBOOKS[notebook]
    if "head" in allowed and names - allowed:
        allowed = allowed | _head_options()
    for name in sorted(names - allowed):
        raise InputError(f"{unknown(name, allowed)}; this notebook takes {', '.join(sorted(allowed))}")
    # A kernel may keep no history of its cells.
    values = {n: namespace[n] for n in names | NOTEBOOKS[notebook] if namespace.get(n) is not None}
    of_run = {n: values[n] for n in Experiment.model_fields if n in values}
    name = Experiment(**of_run).run if "run" in values else make_settings(**of_run).run
    run = Run(name)
    of_data = Data(**{n: value for n, value in values.items() if n in Data.model_fields})
    run.check(values | of_data.model_dump(include=set(values)))
    return make_settings(**{**run.experiment(), **values, "run": name})


def _head_options() -> set[str]:
    from oodlib.checks import options
    from oodlib.detection.heads import HEADS

    return {name for head in HEADS.values() for name in options(head)}


def table(chosen: Settings, notebook: str) -> "pd.DataFrame":
    """What can be set in a notebook: its value now, and its meaning; a row for each setting."""
    import pandas as pd

    fields = {
        n: f
        for cls in (Experiment, *settings.STEPS.values(), settings.Comparison)
        for n, f in cls.model_fields.items()
    }
    rows = {
        name: (str(getattr(chosen, name)), field.description)
        for name, field in fields.items()
        if name in NOTEBOOKS[notebook]
    }
    return pd.DataFrame.from_dict(rows, "index", columns=["value", "meaning"])


def _assigned(cell: str) -> list[str]:
    """Names that a cell of plain assignments sets."""
    try:
        statements = ast.parse(cell).body
    except SyntaxError:  # a cell with a %magic; parameter cells have none
        return []
    targets = [target for s in statements if isinstance(s, ast.Assign) for target in s.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
