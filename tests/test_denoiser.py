import json
import math

import pytest
import torch
from torch.testing import assert_close

from oodlib.diffusion.denoiser import Denoiser
from oodlib.errors import InputError
from oodlib.settings import DenoiserModel

NAMES = ("a", "b", "c")


def tiny(**options):
    return Denoiser(NAMES, (8, 8, 1), DenoiserModel(block_out_channels=(8, 16), **options)).eval()


@pytest.fixture(scope="module")
def denoiser():
    return tiny()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_default_at_8_by_8_has_two_thirds_of_a_million_parameters():
    denoiser = Denoiser(tuple("01234567"), (8, 8, 1))
    assert 0.6e6 < sum(p.numel() for p in denoiser.parameters()) < 0.75e6


def test_default_has_the_number_of_weights_that_saved_digits_models_have():
    assert sum(p.numel() for p in Denoiser(tuple("01234567"), (8, 8, 1)).parameters()) == 652_065


def attentions(denoiser):
    """The levels with attention on the way down, on the way up, and that of the middle."""
    unet = denoiser.unet
    down = [level for level, block in enumerate(unet.down_blocks) if hasattr(block, "attentions")]
    up = [level for level, block in enumerate(reversed(unet.up_blocks)) if hasattr(block, "attentions")]
    return down, up, len(unet.mid_block.attentions)


@pytest.mark.parametrize("levels", [(), (0,), (1,), (0, 1)])
def test_attention_is_in_the_middle_and_at_the_given_levels(levels):
    assert attentions(tiny(attention_levels=levels)) == (list(levels), list(levels), 1)


def test_attention_has_one_head_at_each_level():
    heads = {m.heads for m in tiny(attention_levels=(0, 1)).modules() if type(m).__name__ == "Attention"}
    assert heads == {1}


def test_attention_at_a_level_that_is_not_there_is_refused_on_one_line():
    with pytest.raises(InputError, match=r"^attention level 2 is not known; choose one of 0, 1$"):
        tiny(attention_levels=(2,))


@torch.no_grad()
def test_dropout_drops_in_training_alone():
    denoiser = tiny(dropout=0.5)
    given = normal(2, 1, 8, 8), torch.tensor([10, 500]), torch.eye(3)[:2]
    assert torch.equal(denoiser(*given), tiny()(*given))
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(denoiser.train()(*given), tiny().train()(*given))


@pytest.mark.parametrize("label", range(3))
@torch.no_grad()
def test_one_hot_weights_look_one_class_up(denoiser, label):
    noisy, timesteps = normal(4, 1, 8, 8), torch.tensor([0, 10, 500, 999])
    one_hot = torch.eye(3)[[label] * 4]
    looked_up = denoiser.label_embedding.weight[:, label].expand(4, -1)
    assert_close(
        denoiser(noisy, timesteps, one_hot), denoiser.unet(noisy, timesteps, class_labels=looked_up).sample
    )


@torch.no_grad()
def test_zeros_are_no_class_at_all(denoiser):
    noisy, timesteps = normal(2, 1, 8, 8), torch.tensor([10, 500])
    nothing = torch.zeros(2, denoiser.label_embedding.out_features)
    assert_close(
        denoiser(noisy, timesteps, torch.zeros(2, 3)),
        denoiser.unet(noisy, timesteps, class_labels=nothing).sample,
    )


@torch.no_grad()
def test_two_ones_are_the_sum_of_two_classes(denoiser):
    embedding = denoiser.label_embedding(torch.tensor([1.0, 0.0, 1.0]))
    assert_close(embedding, denoiser.label_embedding.weight[:, [0, 2]].sum(1))


@pytest.mark.parametrize("weights", [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
@torch.no_grad()
def test_label_weights_change_the_prediction(denoiser, weights):
    noisy, timesteps = normal(1, 1, 8, 8), torch.tensor([500])
    first = denoiser(noisy, timesteps, torch.tensor([[1.0, 0.0, 0.0]]))
    assert (denoiser(noisy, timesteps, torch.tensor([weights])) - first).abs().max() > 1e-4


@torch.no_grad()
def test_one_timestep_serves_a_whole_batch(denoiser):
    noisy, weights = normal(3, 1, 8, 8), torch.eye(3)
    assert_close(denoiser(noisy, torch.tensor(40), weights), denoiser(noisy, torch.full((3,), 40), weights))


@pytest.mark.parametrize(
    ("precision", "device", "is_last"),
    [("fp32", "cpu", False), ("bf16", "cpu", True), ("bf16", "meta", False)],
)
def test_the_layout_of_the_weights_follows_precision_and_device(precision, device, is_last):
    settings = DenoiserModel(block_out_channels=(8, 16), precision=precision)
    weight = Denoiser(("a", "b"), (8, 8, 3), settings).to(device).unet.conv_in.weight
    assert weight.is_contiguous() is not is_last
    assert weight.is_contiguous(memory_format=torch.channels_last) is is_last


def cosine_schedule(steps=1000):
    """alpha_bar of Nichol & Dhariwal 2021 (arXiv 2102.09672), with its betas cut at 0.999."""

    def f(t):
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    product, alpha_bar = 1.0, []
    for t in range(steps):
        product *= 1 - min(1 - f(t + 1) / f(t), 0.999)
        alpha_bar.append(product)
    return torch.tensor(alpha_bar, dtype=torch.float64)


def test_noise_schedule_is_the_cosine_schedule(denoiser):
    assert_close(denoiser.noise_scheduler.alphas_cumprod.double(), cosine_schedule(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@torch.no_grad()
def test_loss_is_the_error_of_the_papers_target(prediction_type):
    denoiser = tiny(prediction_type=prediction_type)
    images, noise, weights = (
        normal(4, 1, 8, 8).clamp(-1, 1),
        normal(4, 1, 8, 8, seed=1),
        torch.eye(3)[[0, 1, 2, 0]],
    )
    timesteps = torch.tensor([5, 300, 700, 990])
    signal = cosine_schedule()[timesteps].sqrt().float().view(-1, 1, 1, 1)
    sigma = (1 - signal**2).sqrt()
    target = noise if prediction_type == "epsilon" else signal * noise - sigma * images
    predicted = denoiser(signal * images + sigma * noise, timesteps, weights)
    expected = (predicted - target).square().mean()
    assert_close(denoiser.loss(images, weights, timesteps, noise), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "image_shape, channels", [((8, 8, 3), (8, 16)), ((16, 16, 3), (8, 8, 16)), ((32, 32, 1), (8, 16))]
)
@torch.no_grad()
def test_prediction_has_the_shape_of_the_image(image_shape, channels):
    size, _, colours = image_shape
    denoiser = Denoiser(NAMES, image_shape, DenoiserModel(block_out_channels=channels))
    noisy = normal(2, colours, size, size)
    assert denoiser(noisy, torch.tensor([1, 2]), torch.zeros(2, 3)).shape == noisy.shape


@torch.no_grad()
def test_loaded_denoiser_predicts_the_same(denoiser, tmp_path):
    denoiser.save(tmp_path)
    noisy, timesteps = normal(3, 1, 8, 8), torch.tensor([5, 300, 900])
    assert torch.equal(
        Denoiser.load(tmp_path)(noisy, timesteps, torch.eye(3)), denoiser(noisy, timesteps, torch.eye(3))
    )


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_loaded_denoiser_has_the_same_settings(tmp_path, prediction_type):
    saved = tiny(prediction_type=prediction_type, layers_per_block=2, attention_levels=(1,), dropout=0.1)
    saved.save(tmp_path)
    loaded = Denoiser.load(tmp_path)
    assert loaded.config == saved.config
    assert loaded.noise_scheduler.config.prediction_type == prediction_type


def test_denoiser_saved_before_attention_levels_and_dropout_loads(denoiser, tmp_path):
    denoiser.save(tmp_path)
    config = json.loads((tmp_path / "denoiser.json").read_text())
    del config["attention_levels"], config["dropout"]
    (tmp_path / "denoiser.json").write_text(json.dumps(config))
    assert Denoiser.load(tmp_path).config == denoiser.config


def test_loaded_denoiser_is_in_evaluation_mode(tmp_path):
    tiny().train().save(tmp_path)
    assert not Denoiser.load(tmp_path).training


def test_saved_denoiser_is_safetensors_and_json_alone(denoiser, tmp_path):
    denoiser.save(tmp_path / "new")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"denoiser.safetensors", "denoiser.json"}


def test_empty_folder_is_refused_with_the_notebook_to_run(tmp_path):
    with pytest.raises(InputError, match=r"holds no denoiser\.json; train one with notebook 01_train_ddpm"):
        Denoiser.load(tmp_path)


def test_initial_weights_depend_on_the_seed_alone():
    first, same, other = (tiny(seed=seed).unet.conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["denoiser.json", "denoiser.safetensors"])
def test_a_damaged_denoiser_is_told_with_the_notebook_that_makes_it(denoiser, tmp_path, name):
    denoiser.save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(
        InputError, match=rf"^.*{name} is damaged .* make it again with notebook 01_train_ddpm$"
    ):
        Denoiser.load(tmp_path)


def test_weights_of_another_denoiser_are_told(denoiser, tmp_path):
    denoiser.save(tmp_path)
    config = json.loads((tmp_path / "denoiser.json").read_text())
    (tmp_path / "denoiser.json").write_text(json.dumps(config | {"class_names": ["a", "b"]}))
    with pytest.raises(InputError, match=r"denoiser\.safetensors does not fit denoiser\.json"):
        Denoiser.load(tmp_path)
