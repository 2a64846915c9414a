"""What a detector says of ID test images, OOD sets and shifted ID images: tables, figures, a leaderboard row."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from oodlib.datasets.roles import Role
from oodlib.detection.metrics import fpr_at_tpr, resampled_auroc
from oodlib.errors import InputError, choice
from oodlib.reports import leaderboard, plots
from oodlib.reports.names import label, score_axis
from oodlib.reports.tables import alarm_table, id_and_ood, markdown, metric_table

DRAWS = 500  # of the bootstrap over images


@dataclass(frozen=True, repr=False)
class Report:
    """An evaluation of one detector.

    ID is the positive class: FPR95 is the share of OOD images that are accepted when 95 % of ID images are.
    """

    scores: pd.DataFrame
    """Every score of every image, with `set`, `title`, `role`, `index`, `file`, `label`, `predicted` and
    `correct`."""
    thresholds: dict[str, float]
    """Of each score, from ID validation images."""
    own_score: str
    """The score that the detector takes if none is named."""
    ece: float
    """Expected calibration error on the ID test images."""
    seconds_per_image: float
    """What reading an ID test image and running the network took."""

    @property
    def accuracy(self) -> float:
        """On the ID test images."""
        return float(self.scores.loc[self.scores["role"] == Role.ID, "correct"].mean())

    @cached_property
    def sets(self) -> pd.DataFrame:
        """Each score on each set: `auroc` with its 95 % interval `low` and `high` over images, `aupr_in`, `aupr_out`
        and `fpr95` of OOD sets; `called_ood` at the threshold of all; `accuracy` of ID images, shifted ones too."""
        id_images, ood_sets = id_and_ood(self.scores)
        metrics = metric_table(self.scores).set_index(["score", "ood_set"])
        random, rows = np.random.default_rng(0), []
        sizes = self.scores.groupby("set", sort=False).size()
        counts = {key: _resamples(random, size) for key, size in sizes.items()}
        id_counts = counts[id_images["set"].iloc[0]]
        for row in alarm_table(self.scores, self.thresholds).to_dict("records"):
            score, key = row["score"], row["set"]
            if key in ood_sets:
                row |= metrics.loc[(score, key)].drop(["title", "role", "id_accuracy"]).to_dict()
                draws = resampled_auroc(id_images[score], ood_sets[key][score], id_counts, counts[key])
                row["low"], row["high"] = np.quantile(draws, [0.025, 0.975])
            rows.append(row)
        columns = ["auroc", "low", "high", "aupr_in", "aupr_out", "fpr95", "called_ood", "accuracy"]
        return pd.DataFrame(rows)[["score", "set", "title", "role", *columns]]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each score, the detector's own first, in percent: mean AUROC and FPR95 of near and of far sets, and
        the share of ID test images and of each shifted set that is called OOD."""
        rows = {}
        for score in sorted(self.thresholds, key=lambda name: name != self.own_score):
            of_score = self.sets[self.sets["score"] == score]
            row = {}
            for role in (Role.NEAR, Role.FAR):
                of_role = of_score[of_score["role"] == role]
                if len(of_role):
                    row |= {
                        f"{role} AUROC": of_role["auroc"].mean(),
                        f"{role} FPR95": of_role["fpr95"].mean(),
                    }
            for role in (Role.ID, Role.SHIFTED_ID):
                of_role = of_score[of_score["role"] == role]
                row |= dict(zip("OOD: " + of_role["title"], of_role["called_ood"], strict=True))
            rows[label(score)] = {name: 100 * value for name, value in row.items()}
        return pd.DataFrame.from_dict(rows, "index").round(1).rename_axis("score")

    def plot(self, score: str | None = None) -> Figure:
        """Histograms of a score, the detector's own if None, of ID test images against each OOD set."""
        name = self._score(score)
        of_score = self.scores.assign(score=self.scores[name], outliers="")
        thresholds = {"": self.thresholds[name]}
        return plots.score_distributions(
            of_score, thresholds, f"Where {label(name)} tells OOD from ID", score_axis(name)
        )

    def roc(self, score: str | None = None) -> Figure:
        """ROC curves of a score, ID positive, a line for each OOD set."""
        name = self._score(score)
        of_score = self.scores.assign(score=self.scores[name], outliers="")
        return plots.roc_curves(of_score, f"ID kept against OOD accepted by {label(name)}")

    def to_csv(self, path: str) -> None:
        """Write `sets`."""
        self.sets.to_csv(path, index=False, float_format="%.6g")

    def to_markdown(self) -> str:
        """`table` as Markdown."""
        return markdown(self.table.reset_index().map(str))

    def to_latex(self) -> str:
        """`table` as LaTeX, with booktabs."""
        return self.table.reset_index().to_latex(index=False, escape=True, float_format="%.1f")

    def leaderboard_row(
        self,
        training: str,
        architecture: str,
        score: str | None = None,
        description: str = "",
        outlier_data: bool = False,
    ) -> pd.DataFrame:
        """A row with the columns of OpenOOD v1.5's result files (see `reports.leaderboard`). FPR95, which that project
        reports with OOD as the positive class, has no column there; `fpr95_ood_positive` gives it.

        Raises:
            InputError: The sets are not that project's.
        """
        name = self._score(score)
        of_score = self.sets[self.sets["score"] == name]
        near, far = (of_score[of_score["role"] == role] for role in (Role.NEAR, Role.FAR))
        titles = {*near["title"]}, {*far["title"]}
        if titles not in leaderboard.SETS.values():
            theirs = "; ".join(
                f"{k}: near {_listed(n)}, far {_listed(f)}" for k, (n, f) in leaderboard.SETS.items()
            )
            raise InputError(
                f"OpenOOD has rows for its own sets alone ({theirs}); these are near {_listed(titles[0])}, far "
                f"{_listed(titles[1])}, for which `table` is the answer"
            )
        means = [near["auroc"].mean()], [far["auroc"].mean()]
        row = leaderboard.row(
            training, name, *means, [self.accuracy], architecture, description, outlier_data
        )
        return pd.DataFrame([row])

    def fpr95_ood_positive(self, score: str | None = None) -> dict[str, float]:
        """By OOD set, the share of ID images that are called OOD when 95 % of that set are: OpenOOD's FPR95."""
        name = self._score(score)
        id_images, ood_sets = id_and_ood(self.scores)
        return {
            k: fpr_at_tpr(id_images[name], of_set[name], positive="ood") for k, of_set in ood_sets.items()
        }

    def __repr__(self) -> str:
        return f"{self.table.to_string(float_format='%.1f', na_rep='')}\n{self._words()}"

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(escape=True, float_format='%.1f', na_rep='')}<p>{self._words()}</p>"

    def _words(self) -> str:
        return (
            f"accuracy {self.accuracy:.1%}, expected calibration error {self.ece:.1%}, "
            f"{1000 * self.seconds_per_image:.1f} ms an image; AUROC and FPR95 in percent, ID positive"
        )

    def _score(self, score: str | None) -> str:
        choice("score", score, (None, *self.thresholds))
        return score or self.own_score


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _resamples(random: np.random.Generator, count: int) -> np.ndarray:
    """How often each of `count` images stands in each resample, (DRAWS, count)."""
    return random.multinomial(count, np.full(count, 1 / count), DRAWS)
