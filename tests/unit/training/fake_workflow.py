"""A stand-in for the composite model: the same methods, a few thousand parameters, and dropout to test RNG states."""

import contextlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers.modeling_outputs import CausalLMOutput

VOCAB, WIDTH = 24, 16


class FakeConfig:
    def to_dict(self):
        return {}

    def to_json_string(self):
        return "{}"


class FakeWorkflow(nn.Module):
    """Embedding, a frozen and an inserted layer, a projected feature, a head."""

    def __init__(self, seed=0, dropout=0.1):
        super().__init__()
        torch.manual_seed(seed)
        self.config = FakeConfig()
        self.frozen_layer = nn.Linear(WIDTH, WIDTH)
        self.encoder = nn.Linear(4, 4)
        self.inserted = nn.Linear(WIDTH, WIDTH)
        self.inserted_norm = nn.LayerNorm(WIDTH)
        self.projector = nn.Linear(4, WIDTH)
        self.embed_tokens = nn.Embedding(VOCAB, WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.checkpointing_calls = []
        self.scores = False

    def trainable_parts(self):
        return {
            "projector": ["projector.weight", "projector.bias"],
            "insertion": ["inserted.weight", "inserted.bias", "inserted_norm.weight", "inserted_norm.bias"],
            "ends": ["embed_tokens.weight", "lm_head.weight"],
        }

    def set_trainable(self, parts):
        names = {name for part in parts for name in self.trainable_parts()[part]}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in names)

    def trainable_state_dict(self):
        names = {name for names in self.trainable_parts().values() for name in names}
        return {name: tensor for name, tensor in self.state_dict().items() if name in names}

    def save_pretrained(self, save_directory, model_card=True):
        save_file(self.trainable_state_dict(), str(Path(save_directory) / "model.safetensors"))
        (Path(save_directory) / "config.json").write_text(json.dumps({}))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None):
        self.checkpointing_calls.append(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self):
        self.checkpointing_calls.append("off")

    @contextlib.contextmanager
    def scoring_tokens(self):
        before, self.scores = self.training, True
        self.eval()
        with torch.no_grad():
            yield
        self.train(before)
        self.scores = False

    def forward(self, input_ids, labels=None, features=None, num_items_in_batch=None):
        hidden = self.embed_tokens(input_ids)
        hidden = hidden + self.projector(self.encoder(features["feeling"]))[:, None]
        hidden = hidden + torch.tanh(self.frozen_layer(hidden))
        hidden = hidden + torch.tanh(self.inserted(self.inserted_norm(self.dropout(hidden))))
        logits = self.lm_head(hidden).float()
        if self.scores:
            targets = labels[:, 1:][labels[:, 1:] != -100]
            logits = logits[:, :-1][labels[:, 1:] != -100]
            losses = nn.functional.cross_entropy(logits, targets, reduction="none")
            return CausalLMOutput(loss=losses, logits=logits.argmax(-1) == targets)
        loss = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        count = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutput(loss=loss / count, logits=logits)


class WideWorkflow(FakeWorkflow):
    """With an embedding that is large enough to have its averages kept in 8 bits."""

    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(300, WIDTH)


class FakeData(Dataset):
    def __init__(self, num_samples=24, length=6):
        generator = torch.Generator().manual_seed(7)
        self.ids = torch.randint(0, VOCAB, (num_samples, length), generator=generator)
        self.feelings = torch.randn(num_samples, 4, generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        labels = self.ids[index].clone()
        labels[: 1 + index % 3] = -100  # rows differ in supervised positions, as real ones do
        return {"input_ids": self.ids[index], "labels": labels, "feeling": self.feelings[index]}


def collate(items):
    return {
        "input_ids": torch.stack([item["input_ids"] for item in items]),
        "labels": torch.stack([item["labels"] for item in items]),
        "features": {"feeling": torch.stack([item["feeling"] for item in items])},
    }


class FakeSampler(Sampler):
    def __init__(self, num_samples, seed=0):
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.num_samples

    def __iter__(self):
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        return iter(torch.randperm(self.num_samples, generator=generator).tolist())
