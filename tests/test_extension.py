"""How many places a new idea touches: a line for a denoiser's option, a class for a score, a head, a source.

The package is copied, the lines are written into the copy, and the notebooks run there.
"""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow

ADDED = {  # file -> what is put before which text
    "settings.py": [
        (
            "    prediction_type: Annotated[",
            '    resnet_time_scale_shift: str = Field("default", description="how time steps act")\n',
        )
    ],
    "diffusion/denoiser.py": [
        (
            "                dropout=settings.dropout,\n",
            "                resnet_time_scale_shift=settings.resnet_time_scale_shift,\n",
        )
    ],
    "detection/scores/logits.py": [
        (
            "class MSP(",
            'class MaxLogit(Score, name="max_logit"):\n'
            "    def forward(self, outputs):\n"
            "        return outputs.logits.double().max(-1).values\n\n\n",
        )
    ],
    "detection/heads.py": [
        (
            "class ArcFaceHead(",
            'class NormedHead(SoftmaxHead, name="normed"):\n'
            "    def __init__(self, num_features: int, num_classes: int, temperature: Scale = 0.1):\n"
            "        super().__init__(num_features, num_classes)\n"
            "        self.temperature = temperature\n\n"
            "    def logits(self, features):\n"
            "        return F.normalize(super().logits(features)) / self.temperature\n\n\n",
        ),
    ],
    "outliers/sources.py": [
        (
            "def uniform_noise(",
            "def inverted(train: ImageSet, index: range) -> OutlierPool:\n"
            "    images = 255 - train.images[np.arange(index.start, index.stop) % len(train.images)]\n"
            "    return OutlierPool(images, _no_classes(train, len(images)))\n\n\n",
        ),
        ('    "uniform_noise": Source(', '    "inverted": Source(inverted),\n'),
    ],
}
RUN = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell


for notebook, parameters in json.loads(sys.argv[1]).items():
    shell = InteractiveShell.instance()
    shell.reset()
    cells = json.load(open(f"{sys.argv[2]}/notebooks/{notebook}.ipynb"))["cells"]
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        lines = [line for line in cell["source"] if not line.startswith("%")]
        shell.run_cell("".join(lines), store_history=True).raise_error()
        if "parameters" in cell["metadata"].get("tags", []):
            lines = "".join(f"{name} = {value!r}\\n" for name, value in parameters.items())
            shell.run_cell("# Parameters\\n" + lines, store_history=True).raise_error()
"""
PARAMETERS = {"run": "extended/", "preset": "digits", "profile": "smoke"}
TRAINING = {
    **PARAMETERS,
    "head": "normed",
    "temperature": 0.2,
    "seeds": [0],
    "epochs": 1,
    "degrade": 0.0,
    "noise_levels": [],
}
NOTEBOOKS = {
    "01_train_ddpm": {**PARAMETERS, "resnet_time_scale_shift": "scale_shift"},
    "02_label_mixup": {**PARAMETERS, "outliers": "inverted"},
    "03_train_detector": {**TRAINING, "outliers": "inverted"},
    "04_score_distributions": {**PARAMETERS, "heads": ["normed"], "seed": 0},
    "05_compare": PARAMETERS,
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The run folder of notebooks 1 to 5 with all four ideas."""
    folder = tmp_path_factory.mktemp("extension")
    shutil.copytree(REPOSITORY / "oodlib", folder / "oodlib")
    for name, additions in ADDED.items():
        text = (folder / "oodlib" / name).read_text(encoding="utf-8")
        for place, lines in additions:
            assert text.count(place) == 1, place
            text = text.replace(place, lines + place)
        (folder / "oodlib" / name).write_text(text, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(folder), "MPLBACKEND": "agg"}
    arguments = [sys.executable, "-c", RUN, json.dumps(NOTEBOOKS), str(REPOSITORY)]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "extended"


def test_a_new_option_of_the_denoiser_is_saved_and_a_step_depends_on_it(extended):
    for file in ("denoiser.json", "settings.json"):
        saved = json.loads((extended / "denoiser" / file).read_text())
        assert saved.get("settings", saved)["resnet_time_scale_shift"] == "scale_shift"


def test_a_new_source_draws_a_pool(extended):
    assert (extended / "outliers" / "inverted" / "pool.npz").is_file()


def test_a_new_head_is_trained_with_its_own_option(extended):
    saved = json.loads((extended / "detectors/normed-inverted/seed0/detector.json").read_text())
    assert (saved["head"], saved["head_options"]) == ("normed", {"temperature": 0.2})


def test_head_source_and_score_stand_in_the_tables_and_figures(extended):
    results = pd.read_csv(extended / "results.csv")
    assert set(results["head"]) == {"normed"} and set(results["outliers"]) == {"inverted"}
    assert results.query("score == 'max_logit'")["auroc"].between(0, 1).all()
    assert (extended / "figures" / "scores_normed.png").is_file()
    assert "normed" in (extended / "summary.md").read_text()
