"""Small networks of every kind that the recorder must see whole, each with a training step."""

import math

import torch
import torch.nn.functional as F
from torch import nn

FAMILIES = {}


def family(make):
    """Registers a function that gives a model, its step, and options of the Recorder."""
    FAMILIES[make.__name__] = make
    return make


def trained(model, *inputs, **named):
    """The model, and a step: forward and backward."""

    def run():
        out = model(*inputs, **named)
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()

    return model, run, {}


def heads(x, n):
    """(B, T, C) to (B, n, T, C/n)."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, width, n=2, fused=False, causal=False):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.n, self.fused, self.causal = n, fused, causal

    def forward(self, x):
        q, k, v = (heads(part, self.n) for part in self.qkv(x).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            if self.causal:
                scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
            y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, **how):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, **how)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@family
def convnext():
    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
            self.up, self.down, self.scale = nn.Linear(8, 32), nn.Linear(32, 8), nn.Parameter(torch.ones(8))

        def forward(self, x):
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)

    stem = nn.Conv2d(3, 8, 4, stride=4)
    return trained(
        nn.Sequential(stem, Stage(), Stage(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        torch.randn(3, 3, 32, 32),
    )


@family
def swin():
    class Windows(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift, self.attention = shift, Attention(8)

        def forward(self, x):
            b, h, w, c = x.shape
            y = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
            y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
            y = self.attention(y).view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
            return x + (torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y)

    class Swin(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.blocks = nn.Conv2d(3, 8, 2, stride=2), nn.Sequential(Windows(0), Windows(2))
            self.merge, self.head = nn.Linear(32, 16), nn.Linear(16, 5)

        def forward(self, x):
            x = self.blocks(self.patch(x).permute(0, 2, 3, 1))
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
            return self.head(self.merge(x).mean((1, 2)))

    return trained(Swin(), torch.randn(3, 3, 16, 16))


@family
def vit():
    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.cls = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
            self.places, self.blocks = (
                nn.Parameter(torch.randn(1, 17, 8)),
                nn.Sequential(Block(8), Block(8, fused=True)),
            )
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
            return self.head(self.blocks(x)[:, 0])

    return trained(ViT(), torch.randn(3, 3, 16, 16))


@family
def bert():
    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(20, 8)
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
            self.head = nn.Linear(8, 20)

        def forward(self, tokens, mask):
            return self.head(self.encoder(self.words(tokens), src_key_padding_mask=mask))

    mask = torch.zeros(3, 6).bool()
    mask[1, 4:] = True
    return trained(Bert(), torch.randint(20, (3, 6)), mask=mask)


@family
def gpt2():
    class Conv1D(nn.Module):
        def __init__(self, outputs, inputs):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / 8), nn.Parameter(torch.zeros(outputs))

        def forward(self, x):
            return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(20, 8), nn.Embedding(16, 8)
            self.blocks = nn.Sequential(Block(8, causal=True), Block(8, fused=True, causal=True))
            for block in self.blocks:
                block.attention.qkv, block.attention.out = Conv1D(24, 8), Conv1D(8, 8)
            self.lm_head = nn.Linear(8, 20, bias=False)
            self.lm_head.weight = self.wte.weight

        def forward(self, input_ids):
            places = torch.arange(input_ids.shape[1])
            return self.lm_head(self.blocks(self.wte(input_ids) + self.wpe(places)))

    return trained(GPT(), input_ids=torch.randint(20, (3, 7)))


@family
def llama_lora():
    class Lora(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.base = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
            self.a, self.b = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)

        def forward(self, x):
            return self.base(x) + self.b(self.a(x))

    def rotated(x):
        angles = torch.outer(torch.arange(x.shape[-2]).float(), torch.arange(1, x.shape[-1] // 2 + 1).float())
        a, b = x.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = Lora(8, 8), Lora(8, 4), Lora(8, 4), Lora(8, 8)
            self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((8, 16), (8, 16), (16, 8)))
            for layer in (self.gate, self.up, self.down):
                layer.requires_grad_(False)

        def forward(self, x):
            q, k, v = heads(self.q(x), 2), heads(self.k(x), 1), heads(self.v(x), 1)
            k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(q.shape) for t in (rotated(k), v))
            y = F.scaled_dot_product_attention(rotated(q), k, v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).reshape(x.shape))
            return x + self.down(F.silu(self.gate(x)) * self.up(x))

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.layers = nn.Embedding(20, 8).requires_grad_(False), nn.Sequential(Layer(), Layer())
            self.head = nn.Linear(8, 20, bias=False).requires_grad_(False)

        def forward(self, input_ids=None):
            return self.head(self.layers(self.words(input_ids)))

    return trained(Llama(), input_ids=torch.randint(20, (3, 6)))


@family
def mixtral():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(8, 4, bias=False)
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8)) for _ in range(4))

        def forward(self, x):
            tokens = x.view(-1, x.shape[-1])
            weights, chosen = self.gate(tokens).softmax(-1).topk(2, dim=-1)
            mask = F.one_hot(chosen, 4).permute(2, 1, 0)
            out = torch.zeros_like(tokens)
            for number, expert in enumerate(self.experts):
                place, token = torch.where(mask[number])
                out.index_add_(0, token, expert(tokens[None, token].reshape(-1, 8)) * weights[token, place, None])
            return x + out.reshape(x.shape)

    words = nn.Embedding(20, 8)
    return trained(nn.Sequential(words, Block(8), Experts(), Experts(), nn.Linear(8, 20)), torch.randint(20, (3, 9)))


@family
def lstm():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.lstm = (
                nn.Embedding(20, 8),
                nn.LSTM(8, 8, num_layers=2, batch_first=True, bidirectional=True),
            )
            self.head = nn.Linear(16, 5)

        def forward(self, tokens):
            return self.head(self.lstm(self.words(tokens))[0])

    return trained(Tagger(), torch.randint(20, (3, 5)))


@family
def sequence_first():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.layer = nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16, 0.0)
            self.gru, self.head = nn.GRU(8, 8), nn.Linear(8, 5)

        def forward(self, tokens):
            return self.head(self.gru(self.layer(self.words(tokens)))[0])

    return (*trained(Encoder(), torch.randint(20, (5, 3)))[:2], {"batch_dim": 1})


@family
def whisper():
    class Whisper(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 8, 3, stride=2, padding=1)
            self.encoder, self.words = Block(8), nn.Embedding(20, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.cross = nn.MultiheadAttention(8, 2, batch_first=True)
            self.mlp = nn.Linear(8, 8)

        def forward(self, sound, tokens):
            x = F.gelu(self.conv2(F.gelu(self.conv1(sound)))).permute(0, 2, 1)
            x, y = self.encoder(x), self.words(tokens)
            y = y + self.attention(y, y, y, need_weights=False)[0]
            y = self.mlp(y + self.cross(y, x, x)[0])
            return y @ self.words.weight.t()

    return trained(Whisper(), torch.randn(3, 4, 12), torch.randint(20, (3, 5)))


@family
def unet():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.time, self.first = nn.Linear(4, 8), nn.Conv2d(3, 8, 3, padding=1)
            self.down, self.up = nn.Conv2d(8, 16, 3, 2, 1), nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1)
            self.q, self.kv, self.last = nn.Conv2d(16, 16, 1), nn.Conv1d(16, 32, 1), nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, x, t):
            a = self.first(x) + self.time(t)[:, :, None, None]
            b = F.silu(F.group_norm(self.down(a), 4))
            q = self.q(b).flatten(2)
            k, v = self.kv(b.flatten(2)).chunk(2, 1)
            weights = torch.einsum("bct,bcs->bts", q, k).softmax(-1)
            b = b + torch.einsum("bts,bcs->bct", weights, v).reshape(b.shape)
            return self.last(torch.cat([self.up(b), a], 1))

    return trained(UNet(), torch.randn(3, 3, 8, 8), t=torch.randn(3, 4))


@family
def r3d():
    model = nn.Sequential(
        nn.Conv3d(3, 4, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(4), nn.ReLU(True),
        nn.Conv3d(4, 8, 3, 2, 1, bias=False), nn.ReLU(True), nn.Conv3d(8, 8, 3, padding=1, groups=2, dilation=1),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    return trained(model, torch.randn(3, 3, 4, 14, 14))


@family
def wavenet():
    class WaveNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv1d(1, 8, 1)
            self.filters = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(3))
            self.ones, self.last = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(3)), nn.Conv1d(8, 4, 1)

        def forward(self, x):
            x, skip = self.first(x), 0
            for layer, one in zip(self.filters, self.ones, strict=True):
                a, b = layer(F.pad(x, (layer.dilation[0], 0))).chunk(2, 1)
                y = one(torch.tanh(a) * torch.sigmoid(b))
                x, skip = x + y, skip + y
            return self.last(F.relu(skip))

    return trained(WaveNet(), torch.randn(3, 1, 16))


@family
def dcgan_with_gradient_penalty():
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = nn.Sequential(
                nn.ConvTranspose2d(6, 8, 4), nn.ReLU(True), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
            )
            self.critic = nn.Sequential(
                nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 4, 4), nn.Flatten(), nn.Linear(4, 1)
            )

    model, real, noise = Gan(), torch.randn(3, 3, 8, 8), torch.randn(3, 6, 1, 1)
    share = torch.rand(3, 1, 1, 1)

    def run():
        fake = model.generator(noise)
        loss = model.critic(fake.detach()).mean() - model.critic(real).mean()
        between = (share * real + (1 - share) * fake.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(model.critic(between).sum(), between, create_graph=True)
        (loss + 10 * ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()).backward()
        (-model.critic(fake).mean()).backward()

    return model, run, {}


@family
def recurrent():
    """Cells whose library transposes in place, both directions, sequences of different lengths, steps by hand."""

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.gru = (
                nn.RNN(6, 8, num_layers=2, batch_first=True, bidirectional=True),
                nn.GRU(16, 8, batch_first=True, bidirectional=True),
            )
            self.packed, self.cell, self.head = nn.GRU(16, 8, batch_first=True), nn.LSTMCell(8, 8), nn.Linear(16, 5)

        def forward(self, x):
            x = self.gru(self.rnn(x)[0])[0]
            lengths = torch.tensor([5, 3, 2])
            _, last = self.packed(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))
            state = None
            for step in range(2):
                state = self.cell(last[0] + x[:, step, :8], state)
            return self.head(x) + self.head(torch.cat(state, 1))[:, None]

    return trained(Tagger(), torch.randn(3, 5, 6))


@family
def graph():
    """All nodes of one graph at once: there is one sample."""

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 5)
            self.register_buffer("edges", (torch.rand(7, 7) < 0.4).float())

        def forward(self, x):
            return self.edges @ self.last(F.relu(self.edges @ self.first(x)))

    return (*trained(Graph(), torch.randn(7, 6))[:2], {"batch_dim": None})


@family
def patches():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(8, 27)), nn.Conv2d(8, 3, 3, padding="same", dilation=2)

        def forward(self, x):
            y = self.weight @ F.unfold(x, 3)
            return self.head(F.fold(F.relu(y), (4, 4), 1))

    return trained(Patches(), torch.randn(3, 3, 6, 6))


@family
def decoder():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.other = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
            self.first = nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True)
            self.layer = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)
            self.bilinear = nn.Linear(8, 8)

        def forward(self, x, k, v):
            y = self.other(x, k, v, need_weights=True)[0].transpose(0, 1)
            y = self.layer(self.first(y, y, y)[0].transpose(0, 1), x)
            return torch.einsum("btc,bsc->bts", self.bilinear(y), x)

    return trained(Decoder(), torch.randn(3, 5, 8), torch.randn(3, 7, 6), torch.randn(3, 7, 4))


@family
def volume():
    """Three axes, down and up again, one of them in groups."""
    model = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 8, 2, 2), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.ConvTranspose3d(8, 4, 2, 2), nn.ConvTranspose3d(4, 2, 3, 1, 1, groups=2),
    )  # fmt: skip
    return trained(model, torch.randn(3, 1, 4, 6, 6))


@family
def routed():
    """Experts that are one parameter each, their rows put together by index; adapters beside frozen weights."""

    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.gate = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 4)
            self.up, self.down = nn.Parameter(torch.randn(4, 8, 16)), nn.Parameter(torch.randn(4, 16, 8))

        def forward(self, x):
            tokens = self.frozen(x).reshape(-1, 8)
            share, chosen = self.gate(tokens).softmax(-1).max(-1)
            out = torch.zeros_like(tokens)
            for number in range(4):
                rows = (chosen == number).nonzero().squeeze(1)
                y = F.relu(tokens[rows] @ self.up[number]) @ self.down[number]
                out = out.index_add(0, rows, y * share[rows, None])
            return out.view_as(x)

    return trained(Routed(), torch.randn(3, 9, 8))


@family
def two_optimizers():
    """A GAN of which each part has its own backward pass, the second through the first one's network."""
    generator = nn.Sequential(
        nn.Linear(6, 32), nn.ReLU(), nn.Unflatten(1, (2, 4, 4)), nn.ConvTranspose2d(2, 3, 4, 2, 1)
    )
    critic = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128, 1))
    model, noise, real = (
        nn.ModuleDict({"generator": generator, "critic": critic}),
        torch.randn(3, 6),
        torch.randn(3, 3, 8, 8),
    )

    def run():
        fake, seen = generator(noise), real.clone().requires_grad_()
        score = critic(seen)
        (slope,) = torch.autograd.grad(score.sum(), seen, create_graph=True)
        (F.softplus(-score).mean() + F.softplus(critic(fake.detach())).mean() + slope.square().mean()).backward()
        F.softplus(-critic(fake)).mean().backward()

    return model, run, {}
