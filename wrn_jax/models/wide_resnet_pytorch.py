# pyright: basic, reportMissingImports=false
"""The network in PyTorch, to lie beside its weights. Needs torch and safetensors, nothing else.

    from wide_resnet import load
    model = load(".")  # the folder with config.json and model.safetensors
    logits = model(images)  # uint8 [N, 32, 32, 3], not normalised

WideResNet of Zagoruyko and Komodakis, 2016 (arXiv:1605.07146): pre-activation blocks, whose 1x1 shortcuts read the activated
input. There is no dropout, which evaluation does without.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x):
        active = functional.relu(self.bn1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        return beside + self.conv2(functional.relu(self.bn2(self.conv1(active))))


class Group(nn.Module):
    """Blocks of one width, the first with a stride."""

    def __init__(self, inputs, outputs, blocks, stride):
        super().__init__()
        rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(Block(inputs, outputs, stride), *rest)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """Images, uint8 [N, H, W, 3], to logits [N, num_classes]."""

    def __init__(self, depth, widen_factor, num_classes, mean, std):
        super().__init__()
        blocks = (depth - 4) // 6
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Group(widths[0], widths[1], blocks, 1)
        self.block2 = Group(widths[1], widths[2], blocks, 2)
        self.block3 = Group(widths[2], widths[3], blocks, 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, images):
        x = ((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


def load(folder="."):
    """The network of a folder, ready to evaluate."""
    folder = Path(folder)
    facts = json.loads((folder / "config.json").read_text())
    model = WideResNet(*(facts[name] for name in ("depth", "widen_factor", "num_classes", "mean", "std")))
    # Counters of batches, which evaluation does without, are not in the file.
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"{folder}: model.safetensors and config.json are not of one network")
    return model.eval()
