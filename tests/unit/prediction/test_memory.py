"""Predicted memory against what torch's profiler sees a real step allocate."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import adaptkit
from adaptkit.errors import ModelError, RecipeError
from adaptkit.prediction import fake
from adaptkit.prediction.batches import BatchShape, Medium, build_batch
from adaptkit.prediction.building import pack_base, without_weights
from adaptkit.prediction.devices import memory_per_device
from adaptkit.prediction.memory import StepMemory, predict_step
from adaptkit.stage import OptimizerGroup
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.preparation import prepared
from tests.stages import optimizer_config, stage_config

TOLERANCE = 0.05
"""The goal is a tenth."""

INNER = {"policy": "inner_adapter", "placement": {"layers": [1, 3]}}
PICTURES = torch.zeros(3, 3, 32, 32, device="meta")
ALL = ("projector", "insertion", "ends")
SIZES = {"num_hidden_layers": 4, "vocab_size": 1000}
LLAMA_LIKE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
WIDE = {
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "mixtral": LLAMA_LIKE,
    "stablelm": {},
    "gemma2": {},
    "bloom": {},
    "gpt2": {"n_embd": 128},
}
CASES = {
    "checkpointing": ("llama", INNER, {"train": ALL, "gradient_checkpointing": True, "bf16": True, "loss": "chunked"}),
    "packing": (
        "llama",
        INNER,
        {"train": ("projector", "insertion"), "packing": True, "gradient_accumulation_steps": 2},
    ),
    "muon": (
        "llama",
        INNER,
        {"train": ALL, "optimizer": optimizer_config(groups={"insertion": OptimizerGroup(name="muon")})},
    ),
    "lora": ("gpt2", {"policy": "lora", "rank": 8}, {"train": ("projector", "insertion")}),
    "context": (
        "qwen2",
        {"policy": "gated_cross_attention", "placement": {"layers": [1, 3]}},
        {"train": ("projector", "insertion")},
    ),
    "experts": ("mixtral", {"policy": "projector_only"}, {"train": ("projector",)}),
}


def build(family, insertion, train):
    base = tiny_decoder(family, **SIZES, **WIDE[family])
    modalities = {"image": {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu", "placeholder_id": 1001}}
    return adaptkit.adapt(base, modalities, insertion, "ends" in train)


def batch_for(model, pictures, settings, length=96):
    positions = 1 if model.policy.feature_mode == "context" else model.encode("image", pictures[:1]).shape[1]
    shape = BatchShape(len(pictures), length, settings.packing, supervised=0.5)
    return build_batch(shape, {"image": Medium(1001, positions, pictures)})[0]


def predict(family, insertion, settings, length=96):
    with without_weights():
        model = build(family, insertion, settings.train)
    return predict_step(model, batch_for(model, PICTURES, settings, length), settings)


def measure(family, insertion, settings, length=96):
    """Weights, and the peak of two steps, in bytes."""
    model = build(family, insertion, settings.train)
    model.set_trainable(settings.train)
    batch = batch_for(model, torch.zeros(3, 3, 32, 32), settings, length)
    optimizer = build_optimizer(model, settings.train, settings.optimizer)
    modules = (model, model.base, *model.source_encoders.values())
    weights = sum(t.nbytes for t in {id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}.values())
    with (
        prepared(model, settings),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler,
    ):
        model.train()
        for _ in range(2):
            for _ in range(settings.gradient_accumulation_steps):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
                    loss = model(**batch, num_items_in_batch=10).loss
                loss.backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()
    live = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return weights, weights + peak


@pytest.mark.parametrize("case", CASES)
def test_the_peak_is_what_a_real_step_takes(case) -> None:
    family, insertion, values = CASES[case]
    settings = stage_config(**values)
    memory = predict(family, insertion, settings)
    weights, peak = measure(family, insertion, settings)
    assert memory.frozen + memory.trained == weights
    assert memory.peak == pytest.approx(peak, rel=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_masks_that_are_never_made_count_as_much(case, monkeypatch) -> None:
    family, insertion, values = CASES[case]
    settings = stage_config(**values)
    without_values = predict(family, insertion, settings)
    monkeypatch.setattr(fake, "LARGE_MASK", 1 << 60)
    assert predict(family, insertion, settings).peak == pytest.approx(without_values.peak, rel=0.02)


@pytest.mark.parametrize("packing", [False, True])
def test_no_length_is_too_much(packing) -> None:
    length = 200_000
    settings = stage_config(train=ALL, packing=packing, loss="chunked")
    with without_weights():
        model = build("llama", INNER, ALL)
    batch = batch_for(model, PICTURES, settings, length)
    has_mask = predict_step(model, batch, settings).peak > 3 * length**2
    assert has_mask != packing


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("stablelm", {"packing": True, "loss": "plain"}),  # its attention is not told of segments
        ("gemma2", {"loss": "auto"}),  # it caps its logits
    ],
)
def test_what_depends_on_values_is_tried_on_a_small_decoder(family, values, monkeypatch) -> None:
    monkeypatch.setattr("adaptkit.model.loss.CHUNK_ELEMENTS", 1 << 16)
    settings = stage_config(train=ALL, gradient_checkpointing=True, **values)
    predicted, (_, real) = (work(family, INNER, settings, 400) for work in (predict, measure))
    assert predicted.peak == pytest.approx(real, rel=TOLERANCE)


def test_what_training_would_refuse_is_not_predicted() -> None:
    with pytest.raises(ModelError, match=r"BloomForCausalLM .* conversations apart"):
        predict("bloom", INNER, stage_config(train=ALL, packing=True))


def test_it_tells_settings_apart() -> None:
    def peak(**values):
        return predict("llama", INNER, stage_config(train=ALL, loss="plain", **values)).activations

    plain, selective, whole = peak(), peak(gradient_checkpointing="selective"), peak(gradient_checkpointing=True)
    assert whole < selective < plain


def test_a_packed_base_takes_what_bitsandbytes_makes_of_it(tmp_path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import AutoModelForCausalLM

    from adaptkit.model.inspection import describe_components
    from adaptkit.surgery.quantization import bitsandbytes_config

    settings = stage_config(
        name="x", train=("projector", "insertion"), optimizer=optimizer_config(name="adamw_8bit"), loss="plain"
    )
    with without_weights():
        model = build("llama", INNER, settings.train)
    pack_base(model, "nf4")
    batch = batch_for(model, PICTURES, settings)
    memory = predict_step(model, batch, settings)
    tiny_decoder("llama", **SIZES, **WIDE["llama"]).save_pretrained(tmp_path)
    packing = bitsandbytes_config("nf4", torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=packing, dtype=torch.float32)
    modalities = {"image": {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu"}}
    real, ours = (describe_components(m)[0] for m in (adaptkit.adapt(base, modalities, INNER), model))
    assert ours.num_parameters == real.num_parameters
    assert ours.num_bytes == pytest.approx(real.num_bytes, rel=0.01)
    assert memory.optimizer == pytest.approx(2 * memory.num_trained, rel=0.1)


def test_what_depends_on_values_is_refused() -> None:
    with pytest.raises(ModelError, match="memory cannot be predicted"), fake.WithoutValues():
        fake.fake(torch.zeros(3)).nonzero()


def test_devices_share_what_their_strategy_shares() -> None:
    step = StepMemory(
        num_frozen=800, num_trained=200, frozen=1600, trained=800, gradients=800, optimizer=1600, activations=500,
        peak=5300,
    )  # fmt: skip
    ddp, zero2, zero3, fsdp = (
        memory_per_device(step, name, 4, largest_unit=10) for name in ("ddp", "zero2", "zero3", "fsdp")
    )
    assert ddp.peak == step.peak + step.gradients
    assert (zero2.frozen, zero2.trained, zero2.optimizer) == (1600, 800, (1600 + 800) // 4)
    assert (fsdp.frozen, fsdp.trained, fsdp.gradients, fsdp.optimizer, fsdp.activations) == (400, 200, 200, 400, 520)
    assert zero3.optimizer == (1600 + 800) // 4
    assert memory_per_device(step, "none", 1, 10) == step


@pytest.mark.parametrize(
    ("strategy", "num_devices", "words"),
    [("zero4", 2, "Did you mean"), ("ddp", 0, "0 devices"), ("ddp", -1, "-1 devices"), ("none", 2, "does not fit"),
     ("zero2", 1, "does not fit")],
)  # fmt: skip
def test_other_ways_to_spread_are_refused(strategy, num_devices, words) -> None:
    step = StepMemory(0, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(RecipeError, match=words):
        memory_per_device(step, strategy, num_devices, 0)


def test_a_batch_that_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match="trains nothing"):
        BatchShape(0, 100)
    with pytest.raises(RecipeError, match="cannot be learned"):
        BatchShape(1, 100, supervised=0.0)
    with pytest.raises(RecipeError, match="leave no room"):
        build_batch(BatchShape(1, 16), {"image": Medium(1001, 16, None)})


def test_code_that_asks_for_the_cpu_gets_real_tensors_while_a_model_is_built() -> None:
    with without_weights():
        assert torch.nn.Linear(2, 2).weight.is_meta
        encoder = torch.nn.Linear(2, 2, device="cpu").to(torch.bfloat16)
    assert torch.isfinite(encoder.weight).all()
