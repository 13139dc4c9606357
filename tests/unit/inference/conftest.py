import random

import pytest
import torch
from PIL import Image

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

INNER = {"policy": "inner_adapter", "placement": {"layers": [1, 2]}}
GATED = {"policy": "gated_inner_adapter", "placement": {"layers": [0]}}
PLACEHOLDER_ID = 400  # outside the vocabulary


def build(base, insertion, *, replace_ends=True, seed=1):
    """A workflow that takes images and its processor; its tensors are off their starting point."""
    torch.manual_seed(seed)
    modality = {"encoder": tiny_clip_vision(), "projector": "linear", "placeholder_id": PLACEHOLDER_ID}
    model = adaptkit.adapt(base, {"image": modality}, insertion, replace_ends)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return model, adaptkit.AdaptkitProcessor.from_model(model, tiny_tokenizer())


def open_session(family="llama", policies=None, **options):
    """A session over a tiny base, which never ends a turn of its own, so that answers have their full length."""
    base = tiny_decoder(family)
    base.generation_config.eos_token_id = None
    policies = {"vision": INNER, "other": GATED} if policies is None else policies
    workflows = {name: build(base, insertion, seed=seed) for seed, (name, insertion) in enumerate(policies.items())}
    tokenizer = None if workflows else tiny_tokenizer()
    return adaptkit.Session(base, workflows, tokenizer=tokenizer, **options)


def alone(session, messages, workflow, num_new):
    """What stock `generate` answers to one prompt, up to the end of a turn."""
    processor = session.processor(workflow)
    batch = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    stop = processor.stop_settings()
    new = session.workflows[workflow].generate(**batch, max_new_tokens=num_new, do_sample=False, **stop, pad_token_id=0)
    return new[0, batch["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number in range(3):
        paths.append(str(folder / f"{number}.png"))
        Image.frombytes("RGB", (32, 32), random.Random(number).randbytes(32 * 32 * 3)).save(paths[-1])
    return paths


def say(text, *pictures):
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def session():
    with open_session() as opened:
        yield opened
