"""The networks that turn images into features: torchvision's ResNets, changed for small images."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from oodlib.errors import choice


class NarrowResNet(ResNet):
    """torchvision's ResNet of basic blocks at a fraction of its width, without the stages that have no blocks.

    Args:
        blocks: Of each stage.
        stem: Channels before the first stage.
    """

    def __init__(self, blocks: list[int], fraction: int, stem: int):
        self.fraction, self.stem = fraction, stem
        super().__init__(BasicBlock, blocks)
        self.bn1 = nn.BatchNorm2d(stem)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:  # the first stage
            self.inplanes = self.stem
        if not blocks:
            return nn.Identity()
        return super()._make_layer(block, planes // self.fraction, blocks, stride, dilate)


BACKBONES = {
    "resnet_small": lambda: NarrowResNet([1, 1, 1, 0], 4, stem=64),  # for 8 x 8 images
    "resnet18_quarter": lambda: NarrowResNet([2, 2, 2, 2], 4, stem=16),
    "resnet18": lambda: ResNet(BasicBlock, [2, 2, 2, 2]),
    "resnet50": lambda: ResNet(Bottleneck, [3, 4, 6, 3]),
}


def make_backbone(name: str, channels: int) -> tuple[nn.Module, int]:
    """A torchvision ResNet with a 3 x 3 stem and no pooling after it, and its number of features."""
    choice("backbone", name, BACKBONES)
    net = BACKBONES[name]()
    net.conv1 = nn.Conv2d(channels, net.bn1.num_features, kernel_size=3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    net.fc = nn.Identity()
    with torch.no_grad():
        num_features = net.eval()(torch.zeros(1, channels, 8, 8)).shape[1]
    return net.train(), num_features
