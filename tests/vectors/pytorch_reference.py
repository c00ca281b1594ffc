"""WideResNet-d-k, mixed-up loss and accuracy count in PyTorch: what the JAX code is compared with.

Pre-activation WideResNet (Zagoruyko and Komodakis 2016, arXiv:1605.07146) with the choices of the two recipes: a 1x1
shortcut only where width or stride changes, reading the activated input; otherwise the raw input is the identity.
PyTorch is needed only to make vectors and baseline curves, never to run or test the package.
"""

import torch
from torch import nn
from torch.nn import functional as F

PARAMETERS_28_10 = 36_536_884


class Block(nn.Module):
    """BN-ReLU-conv3x3-BN-ReLU-dropout-conv3x3, plus the shortcut. [B, C, H, W] -> [B, out, H / stride, W / stride]."""

    def __init__(self, in_width, out_width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        changes_shape = in_width != out_width or stride != 1
        self.shortcut = nn.Conv2d(in_width, out_width, 1, stride=stride, bias=False) if changes_shape else None
        self.dropout_rate = 0.0

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(activated)
        y = F.relu(self.bn2(self.conv1(activated)))
        # A plain attribute and not nn.Dropout: recipes change the rate during training.
        y = F.dropout(y, self.dropout_rate, self.training)
        return identity + self.conv2(y)


class Group(nn.Module):
    """`count` blocks of one width; the first takes the stride. Its child `layer` gives the state_dict its names."""

    def __init__(self, in_width, out_width, count, stride):
        super().__init__()
        first = Block(in_width, out_width, stride)
        self.layer = nn.Sequential(first, *(Block(out_width, out_width, 1) for _ in range(count - 1)))

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """WideResNet-depth-widen_factor. images: [B, 3, 32, 32] normalised -> logits: [B, num_classes].

    Raises ValueError unless depth is 6 n + 4.
    """

    def __init__(self, depth, widen_factor, num_classes=100):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is {depth}; it must be 6 n + 4 with n >= 1")
        count = (depth - 4) // 6
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.block1 = Group(widths[0], widths[1], count, stride=1)
        self.block2 = Group(widths[1], widths[2], count, stride=2)
        self.block3 = Group(widths[2], widths[3], count, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)

    def forward(self, images):
        y = self.block3(self.block2(self.block1(self.conv1(images))))
        y = F.relu(self.bn1(y))
        return self.fc(y.mean(dim=(2, 3)))

    def set_dropout_rate(self, rate):
        for module in self.modules():
            if isinstance(module, Block):
                module.dropout_rate = rate


def initialise(model):
    """Convolutions Kaiming normal over fan-out, linear Xavier uniform with bias 0; BatchNorm starts at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def count_parameters(depth, widen_factor, num_classes=100):
    """Number of trainable parameters; allocates nothing."""
    with torch.device("meta"):
        model = WideResNet(depth, widen_factor, num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def mix(images, lam, permutation):
    """Mixup of a batch with a permutation of itself: lam * images + (1 - lam) * images[permutation]."""
    return lam * images + (1 - lam) * images[permutation]


def mixed_cross_entropy(logits, labels_a, labels_b, lam, label_smoothing):
    """lam * CE(labels_a) + (1 - lam) * CE(labels_b), both smoothed, mean over the batch; a scalar."""
    loss_a = F.cross_entropy(logits, labels_a, label_smoothing=label_smoothing)
    loss_b = F.cross_entropy(logits, labels_b, label_smoothing=label_smoothing)
    return lam * loss_a + (1 - lam) * loss_b


def mixed_correct(logits, labels_a, labels_b, lam):
    """Sum over the batch of lam * [prediction = a] + (1 - lam) * [prediction = b]; a Python float."""
    prediction = logits.argmax(dim=1)
    hits_a = (prediction == labels_a).sum().item()
    hits_b = (prediction == labels_b).sum().item()
    return lam * hits_a + (1 - lam) * hits_b
