"""Trains a small GPT on text, dense and by SWAT at 80 % and 90 %, and records it: ``python traces/build_gpt.py``.

The text is Python's own reference of the language, as ``help()`` shows it and every Python brings it
(``pydoc_data.topics``; Python Software Foundation License). Letters are the tokens. Nothing else is needed; the
text and the last bits depend on the versions of Python and PyTorch. Each run starts from the same weights,
sees the same batches, and is recorded in its last step, one sequence of the batch, as masks.

By SWAT's rules all linear layers but the first are sparse; attention multiplies activations, which stay as they are.
"""

import argparse
import hashlib
import json
import math
import platform
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from accelsim.capture import Recorder, SwatConfig, convert

WIDTH, DEPTH, HEADS, LENGTH, BATCH = 256, 4, 4, 128, 8
RATE, WARMUP, SEED = 1e-3, 50, 0
HELD_OUT = 0.1  # of the text, its end
SNAPSHOTS = (("dense", 0.0, "dense"), ("swat80", 0.8, "SWAT-U"), ("swat90", 0.9, "SWAT-U"))


class Block(nn.Module):
    """Attention and two linear layers, each on a normalised input, as in GPT-2."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attention.transpose(1, 2).reshape(x.shape))
        return x + self.out(F.gelu(self.fc(self.ln_2(x))))


class Gpt(nn.Module):
    def __init__(self, letters):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(letters, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(DEPTH))
        self.ln_f, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, letters, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0, 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def sequences(tokens, count, seed):
    """Batches without end of a text, and of the letters that follow."""
    random = np.random.default_rng(seed)
    while True:
        starts = random.integers(0, len(tokens) - LENGTH - 1, count)
        both = torch.stack([tokens[start : start + LENGTH + 1] for start in starts.tolist()])
        yield both[:, :-1], both[:, 1:]


def loss_of(model, batch):
    tokens, following = batch
    return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())


def train(model, tokens, sparsity, steps, recorded):
    """One run; gives the last losses on the text, and on what of it was held out."""
    split = int(len(tokens) * (1 - HELD_OUT))
    batches = sequences(tokens[:split], BATCH, SEED)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    with convert(model, SwatConfig(sparsity)) as swat:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
            with recorded(step):
                optimizer.zero_grad()
                loss = loss_of(model, next(batches))
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            swat.step(optimizer)
            losses.append(loss.item())
            if step % 100 == 0:
                print(f"{100 * sparsity:g} %, step {step}: {loss.item():.3f}", flush=True)
        with torch.no_grad():
            others = sequences(tokens[split:], BATCH, SEED)
            held_out = [loss_of(model, next(others)).item() for _ in range(20)]
    return {"loss": round(float(np.mean(losses[-20:])), 3), "loss held out": round(float(np.mean(held_out)), 3)}


def build(out: Path, steps: int) -> None:
    text = "\n".join(topics[name] for name in sorted(topics))
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    torch.manual_seed(SEED)
    model = Gpt(len(letters))
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    provenance = {
        "text": f"pydoc_data.topics of Python {platform.python_version()}, {len(text)} letters, {len(letters)} "
        "different ones (Python Software Foundation License)",
        "text (sha256)": hashlib.sha256(text.encode()).hexdigest(),
        "training": f"AdamW, {steps} steps of {BATCH} sequences of {LENGTH} letters, learning rate {RATE}, cosine",
        "runs": {},
    }
    recorder = Recorder(model, out, steps={steps - 1}, network="gpt", dataset="python-reference", provenance=provenance)
    with recorder:
        for name, sparsity, algorithm in SNAPSHOTS:
            model.load_state_dict(initial)
            recorded = partial(recorder.step, name=name, sparsity=sparsity, algorithm=algorithm)
            provenance["runs"][name] = train(model, tokens, sparsity, steps, recorded)
            print(name, json.dumps(provenance["runs"][name]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gpt.npz")
    parser.add_argument("--steps", type=int, default=900)
    arguments = parser.parse_args()
    build(arguments.out, arguments.steps)
