"""The layers of the published Pose Prior Learner, as its formulas in formulas.py use them.

Modules bear the names of the published state dict. Coordinates are in the published order, (row, column).
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


def half():
    return nn.Upsample(scale_factor=0.5, mode="bilinear")


def double():
    return nn.Upsample(scale_factor=2, mode="bilinear")


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Numbered(nn.Module):
    """Layers in order, under a name: how the published state dict has them."""

    def __init__(self, **named):
        super().__init__()
        for name, layers in named.items():
            self.add_module(name, nn.Sequential(*layers))

    def forward(self, x):
        return self.net(x)


class RegressorDown(Numbered):
    """Main and side path, each of which convolves at full resolution before it halves."""

    def __init__(self, inputs, outputs):
        main = conv(inputs, outputs), half(), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
        main = *main, conv(outputs, outputs), nn.BatchNorm2d(outputs)
        super().__init__(net=main, conv_res=(conv(inputs, outputs), half(), nn.BatchNorm2d(outputs)))

    def forward(self, x):
        return F.leaky_relu(self.net(x) + self.conv_res(x), 0.2)


def regressor_up(inputs, outputs):
    return Numbered(net=(double(), conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)))


def translator_down(inputs, outputs):
    first = conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    return Numbered(net=(*first, conv(outputs, outputs), nn.BatchNorm2d(outputs), half(), nn.LeakyReLU(0.2)))


def translator_up(inputs, outputs):
    first = double(), conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    return Numbered(net=(*first, conv(outputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)))


class PublishedRegressor(nn.Module):
    """Affine maps (B, N, 2, 3) of images (B, 3, S, S) and the prior (N, 2), (row, column)."""

    def __init__(self, s):
        super().__init__()
        base, last, cells = s.scaled(s.regressor_base), s.scaled(s.regressor_base) * 2, s.image_size // 4
        sizes = [3, *(base * 2**level for level in range(4))]
        downs = [RegressorDown(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.conv = nn.Sequential(*downs, regressor_up(8 * base, 4 * base), regressor_up(4 * base, last))
        self.pred_prob, self.emb = conv(last, s.num_keypoints), nn.Linear(2, last)
        self.predict = nn.Sequential(nn.Linear(3 * last, last), nn.LeakyReLU(0.01), nn.Linear(last, 6))
        axis = torch.linspace(-1, 1, cells)
        self.register_buffer("coord", torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, -1, 2))

    def forward(self, images, prior):
        features = self.conv(images)
        shares = self.pred_prob(features).flatten(2).softmax(-1)
        features = shares @ features.flatten(2).transpose(1, 2)
        places = shares @ self.emb(self.coord).expand(len(images), -1, -1)
        affine = self.predict(torch.cat([features, places, self.emb(prior).expand_as(places)], -1))
        return affine.reshape(*affine.shape[:2], 2, 3)


class PublishedTranslator(nn.Module):
    """(B, 3, S, S) from a reference (B, 3, S, S) and a link heatmap (B, 1, S, S)."""

    def __init__(self, s):
        super().__init__()
        sizes = [s.scaled(s.translator_base) * factor for factor in (1, 2, 4, 8, 8)]
        self.down0 = nn.Sequential(conv(4, sizes[0]), nn.LeakyReLU(0.2))
        for i in range(4):
            self.add_module(f"down{i + 1}", translator_down(sizes[i], sizes[i + 1]))
            self.add_module(f"up{i + 1}", translator_up(sizes[4 - i] * (2 if i else 1), sizes[3 - i]))
        self.conv = conv(2 * sizes[0], 3)

    def forward(self, reference, heatmap):
        x = self.down0(torch.cat([reference, heatmap], 1))
        skips = [x]
        for i in range(1, 5):
            x = getattr(self, f"down{i}")(x)
            skips.append(x)
        for i in range(1, 5):
            x = torch.cat([getattr(self, f"up{i}")(x), skips[4 - i]], 1)
        return self.conv(x)


class Mixer(nn.Module):
    """x + y + z of (B, tokens, width): y across the tokens, z across the width."""

    def __init__(self, tokens, width, hidden_tokens, hidden):
        super().__init__()
        self.layernorm1, self.layernorm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.MLP_token, self.MLP_channel = self.mlp(tokens, hidden_tokens), self.mlp(width, hidden)

    @staticmethod
    def mlp(size, hidden):
        return Numbered(ff=(nn.Linear(size, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, size)))

    def forward(self, x):
        y = self.MLP_token.ff(self.layernorm1(x).transpose(1, 2)).transpose(1, 2)
        return x + y + self.MLP_channel.ff(self.layernorm2(x + y))


class PublishedVGG(nn.Module):
    """The L1 distance of the features of two batches of images in [-1, 1], VGG16's up to relu4_3, at 224 x 224."""

    side = 224

    def __init__(self):
        super().__init__()
        self.blocks, inputs, index = nn.ModuleList(), 3, 0
        for count, width in zip((2, 2, 3, 3), (64, 128, 256, 512), strict=True):
            layers = {} if index == 0 else {str(index - 1): nn.MaxPool2d(2)}
            for _ in range(count):
                layers |= {str(index): nn.Conv2d(inputs, width, 3, padding=1), str(index + 1): nn.ReLU()}
                inputs, index = width, index + 2
            self.blocks.append(nn.Sequential(OrderedDict(layers)))
            index += 1
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))

    def forward(self, images, targets):
        x, y = (((i + 1) / 2 - self.mean) / self.std for i in (images, targets))
        x, y = (F.interpolate(i, (self.side, self.side), mode="bilinear") for i in (x, y))
        loss = 0
        for block in self.blocks:
            x, y = block(x), block(y)
            loss = loss + F.l1_loss(x, y)
        return loss
