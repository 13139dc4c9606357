"""What holds for the policies whose modules know which tokens are media, or what the media are."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import adaptkit
from adaptkit.policies.visual_expert import ROWS, RoutedModule, split_rows
from adaptkit.surgery import AdapterContext, provide_context
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, build
from tests.unit.model.test_workflow_properties import ROUNDING, TEXT, _single_rows, logits_of
from tests.unit.policies.conftest import insertion_of

WORD = 7  # a placeholder that is a word of the vocabulary


@pytest.fixture(params=["gated_cross_attention", "visual_expert"])
def policy(request):
    return request.param


def fresh(family, insertion, *, placeholder_id=PLACEHOLDER_ID, projector="mlp2x_gelu"):
    base = tiny_decoder(family, num_hidden_layers=4)
    image = {"encoder": tiny_clip_vision(), "projector": projector, "placeholder_id": placeholder_id}
    return base, adaptkit.adapt(base, {"image": image}, insertion)


def gradients_of(model, batch):
    model.train()
    model.zero_grad()
    model(**batch.inputs, labels=batch.labels).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_beam_search_with_several_items_equals_one_row_at_a_time(base_and_model):
    _, model = base_and_model
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 3, "do_sample": False}
    together = model.generate(**batch.inputs, **options)[:, -4:]
    for row, (inputs, _) in enumerate(_single_rows(batch)):
        assert torch.equal(together[row : row + 1], model.generate(**inputs, **options)[:, -4:])


def test_a_batch_equals_its_rows_alone(base_and_model):
    _, model = base_and_model
    batch = batch_of(model)
    together = logits_of(model, **batch.inputs)
    for row, (inputs, length) in enumerate(_single_rows(batch)):
        torch.testing.assert_close(together[row : row + 1, :length], logits_of(model, **inputs), **ROUNDING)


def test_other_media_change_what_follows_them_alone(base_and_model):
    _, model = base_and_model
    batch = batch_of(model)
    one = logits_of(model, **batch.inputs)
    other = logits_of(model, **{**batch.inputs, "features": {"image": batch.pixel_values.roll(1, 0)}})
    before = (batch.inputs["input_ids"] == PLACEHOLDER_ID).cumsum(1) == 0
    after = ~before & (batch.inputs["attention_mask"] == 1)
    assert torch.equal(one[before], other[before])
    assert (one != other).any(-1)[after].all()


def test_every_own_tensor_has_a_gradient(base_and_model):
    _, model = base_and_model
    for name, gradient in gradients_of(model, batch_of(model)).items():
        assert gradient is not None, name
        assert gradient.any(), name


def test_a_batch_without_media_has_zero_gradients_rather_than_none(base_and_model):
    _, model = base_and_model
    batch = batch_of(model, num_items=(0, 0))
    batch.inputs.pop("features")
    gradients = gradients_of(model, batch)
    of_media = [name for name in model.trainable_parts()["insertion"] if ".expert." in name or ".attn" in name]
    assert of_media
    for name in of_media:
        assert gradients[name] is not None, name
        assert not gradients[name].any(), name


def test_training_and_evaluation_compute_the_same_without_media(base_and_model):
    _, model = base_and_model
    with torch.no_grad():
        one, other = model.eval()(**TEXT).logits, model.train()(**TEXT).logits
    assert torch.equal(one, other)


# Maps that no module holds, residuals inside the MLP, fused maps, soft-caps, experts, cached latents, bottlenecks
ODD_FAMILIES = ("opt", "bloom", "mpt", "phi3", "gemma2", "mixtral", "deepseek_v3", "gpt_neo", "codegen", "cohere2")


@pytest.mark.parametrize("odd", ODD_FAMILIES)
def test_odd_families(policy, odd):
    """Starts as the base, decodes beside a cache as without one, and every own tensor has a gradient."""
    base, model = fresh(odd, insertion_of(policy))
    assert torch.equal(logits_of(model, **TEXT), logits_of(base, **TEXT))
    _, model = build(odd, insertion=insertion_of(policy), replace_ends=False)
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached = model.generate(**batch.inputs, **options)
    uncached = model.generate(**batch.inputs, **options, use_cache=False)
    for one, other in zip(cached.logits, uncached.logits, strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)
    for name, gradient in gradients_of(model, batch).items():
        assert gradient is not None, name
        assert gradient.any(), name


class TestGatedCrossAttention:
    def test_closed_gates_leave_the_base_also_with_media(self, family):
        base, model = fresh(family, insertion_of("gated_cross_attention"), placeholder_id=WORD)
        _, outside = fresh(family, insertion_of("gated_cross_attention"))
        batch = batch_of(outside)
        ids = batch.inputs["input_ids"]
        batch.inputs["input_ids"] = ids.masked_fill(ids == WORD, 8).masked_fill(ids == PLACEHOLDER_ID, WORD)
        stock = {name: value for name, value in batch.inputs.items() if name != "features"}
        assert torch.equal(logits_of(model, **batch.inputs), logits_of(base, **stock))

    def test_a_placeholder_stands_for_an_item(self):
        _, model = build("llama", insertion=insertion_of("gated_cross_attention"), replace_ends=False)
        assert model.config.modalities["image"]["feature_mode"] == "context"
        ids = torch.tensor([[5, *[PLACEHOLDER_ID] * 16, 6]])
        with pytest.raises(adaptkit.DataError, match=r"16 image placeholders.* 1 positions"):
            model(input_ids=ids, features={"image": torch.zeros(1, 3, 32, 32)})

    def test_conversations_go_on_beside_the_cache(self, family):
        """A second turn with a medium of its own, on the cache of the first, equals both turns at once."""
        _, model = build(family, insertion=insertion_of("gated_cross_attention"), replace_ends=False)
        pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        turns = [torch.tensor([[5, PLACEHOLDER_ID, 6, 9]]), torch.tensor([[8, PLACEHOLDER_ID, 11, 12]])]
        with torch.no_grad():
            whole = model(input_ids=torch.cat(turns, 1), features={"image": pictures}).logits
            first = model(input_ids=turns[0], features={"image": pictures[:1]}, use_cache=True)
            second = model(
                input_ids=turns[1], features={"image": pictures[1:]}, past_key_values=first.past_key_values
            ).logits
        torch.testing.assert_close(torch.cat([first.logits, second], 1), whole, **ROUNDING)

    def test_items_of_several_modalities_stand_in_reading_order(self):
        torch.manual_seed(0)
        projector = torch.nn.Linear(32, 32)
        entry = {"encoder": tiny_clip_vision(), "projector": projector}
        modalities = {name: {**entry, "placeholder_id": 900 + i} for i, name in enumerate(("left", "right"))}
        insertion = {**insertion_of("gated_cross_attention"), "attend": "all_previous"}
        model = adaptkit.adapt(tiny_decoder("llama", num_hidden_layers=4), modalities, insertion)
        with torch.no_grad():
            for name in model.trainable_parts()["insertion"]:
                model.get_parameter(name).add_(0.1 * torch.randn(model.get_parameter(name).shape))
        first, second = torch.randn(2, 1, 3, 32, 32)
        one = logits_of(model, input_ids=torch.tensor([[5, 900, 6, 901, 7]]), features={"left": first, "right": second})
        other = logits_of(
            model, input_ids=torch.tensor([[5, 901, 6, 900, 7]]), features={"left": second, "right": first}
        )
        assert torch.equal(one, other)
        swapped = logits_of(
            model, input_ids=torch.tensor([[5, 901, 6, 900, 7]]), features={"left": first, "right": second}
        )
        assert not torch.allclose(one, swapped, atol=1e-4)

    def test_modalities_of_different_lengths_need_a_resampler(self):
        entry = {"encoder": tiny_clip_vision()}
        lengths = {"left": 3, "right": 4}
        modalities = {
            name: {
                **entry,
                "projector": {"name": "perceiver_resampler", "depth": 1, "num_latents": length},
                "placeholder_id": 900 + i,
            }
            for i, (name, length) in enumerate(lengths.items())
        }
        model = adaptkit.adapt(
            tiny_decoder("llama", num_hidden_layers=4), modalities, insertion_of("gated_cross_attention")
        )
        features = {"left": torch.zeros(1, 3, 32, 32), "right": torch.zeros(1, 3, 32, 32)}
        with pytest.raises(adaptkit.DataError, match=r"these take 3 \(left\), 4 \(right\)"):
            model(input_ids=torch.tensor([[5, 900, 6, 901, 7]]), features=features)

    def test_all_previous_items_or_the_latest(self):
        insertion = insertion_of("gated_cross_attention")
        _, latest = build("llama", insertion=insertion, replace_ends=False)
        _, all_previous = build("llama", insertion={**insertion, "attend": "all_previous"}, replace_ends=False)
        batch = batch_of(latest, num_items=(1, 2, 0))
        one, other = logits_of(latest, **batch.inputs), logits_of(all_previous, **batch.inputs)
        second = (batch.inputs["input_ids"] == PLACEHOLDER_ID).cumsum(1) > 1
        assert torch.equal(one[~second], other[~second])
        assert ((one - other).abs().amax(-1)[second] > 1e-5).any()

    def test_keys_are_computed_once_for_all_decoding_steps(self):
        _, model = build("llama", insertion=insertion_of("gated_cross_attention"), replace_ends=False)
        calls = []
        for name, module in model.named_modules():
            if name.endswith("attn.to_kv"):
                module.register_forward_hook(lambda *_, name=name: calls.append(name))
        batch = batch_of(model, padding_side="left")
        model.generate(**batch.inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        assert len(calls) == len(set(calls)) == 2

    def test_the_residual_stream_keeps_its_type(self):
        base = tiny_decoder("llama", num_hidden_layers=2).to(torch.bfloat16)
        image = {"encoder": tiny_clip_vision(), "projector": "linear", "placeholder_id": WORD}
        insertion = {**insertion_of("gated_cross_attention"), "placement": {"layers": [0, 1]}}
        model = adaptkit.adapt(base, {"image": image}, insertion)
        assert all(tensor.dtype == torch.float32 for tensor in model.trainable_state_dict().values())
        seen = []
        model.language_model.model.layers[1].self_attn.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        logits_of(model, input_ids=torch.tensor([[5, WORD, 6]]), features={"image": torch.zeros(1, 3, 32, 32)})
        assert [tensor.dtype for tensor in seen] == [torch.bfloat16]


class TestVisualExpert:
    def test_fresh_experts_compute_as_the_base(self, family):
        base, model = fresh(family, {"policy": "visual_expert"})
        _, without = fresh(family, None, projector=model.projectors["image"])
        batch = batch_of(model)
        torch.testing.assert_close(logits_of(model, **batch.inputs), logits_of(without, **batch.inputs), **ROUNDING)
        assert torch.equal(logits_of(model, **TEXT), logits_of(base, **TEXT))

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    @torch.no_grad()
    def test_media_positions_alone_meet_the_expert(self, family):
        base, model = build(family, insertion={"policy": "visual_expert"}, replace_ends=False)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 5, 32, generator=generator)
        mask = torch.rand(2, 5, generator=generator) > 0.5
        assert 0 < int(mask.sum()) < mask.numel()
        context = AdapterContext(mask, mask.any(1).long())
        context.put(ROWS, split_rows(mask))
        stock = dict(base.named_modules())
        routed = {n: m for n, m in model.language_model.named_modules() if isinstance(m, RoutedModule)}
        assert len(routed) == 4 * {"llama": 4, "gpt2": 2}[family]
        for name, module in routed.items():
            with provide_context(context):
                output = module(x)
            expected = torch.where(mask.unsqueeze(-1), module.expert(x), stock[name](x))
            torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(stock[name](x), module.expert(x), atol=1e-4)

    def test_each_side_computes_its_own_positions_alone(self):
        _, model = build("llama", insertion={"policy": "visual_expert"}, replace_ends=False)
        seen = {"expert": 0, "frozen": 0}
        mlp = model.language_model.model.layers[2].mlp
        for side, module in (("expert", mlp.expert.up_proj), ("frozen", mlp.up_proj)):
            module.register_forward_hook(
                lambda _, args, __, side=side: seen.update({side: seen[side] + args[0].flatten(0, -2).shape[0]})
            )
        batch = batch_of(model)
        logits_of(model, **batch.inputs)
        num_media = int((batch.inputs["input_ids"] == PLACEHOLDER_ID).sum())
        assert seen == {"expert": num_media, "frozen": batch.inputs["input_ids"].numel() - num_media}
        seen.update(expert=0)
        logits_of(model, **TEXT)
        assert seen["expert"] == 0

    def test_the_output_projection_is_an_option(self):
        names = {}
        for option in (False, True):
            insertion = {"policy": "visual_expert", "output_projection": option, "placement": {"layers": [2]}}
            _, model = build("llama", insertion=insertion, replace_ends=False)
            names[option] = set(model.trainable_parts()["insertion"])
            assert [kind for kind, _ in model.config.layer_map] == ["frozen", "frozen", "adapted", "frozen"]
        layer = "language_model.model.layers.2"
        assert names[True] - names[False] == {f"{layer}.self_attn.o_proj.expert.weight"}
        attention = {f"{layer}.self_attn.{part}_proj.expert.weight" for part in "qkv"}
        assert names[False] == attention | {f"{layer}.mlp.expert.{part}_proj.weight" for part in ("gate", "up", "down")}

    @pytest.mark.parametrize(
        ("model_type", "sizes", "reason"),
        [
            ("mamba", {}, "MambaForCausalLM, layer 0: MambaBlock has no attention module"),
            (
                "gpt_oss",
                {"head_dim": 8, "num_key_value_heads": 2, "intermediate_size": 16, "num_local_experts": 4},
                "GptOssForCausalLM, layer 0: GptOssMLP returns a tuple instead of hidden states alone",
            ),
        ],
    )
    def test_what_cannot_be_divided_is_refused(self, model_type, sizes, reason):
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64, **sizes}
        base = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).eval()
        image = {"encoder": tiny_clip_vision(), "projector": "linear"}
        with pytest.raises(adaptkit.ModelError, match=reason):
            adaptkit.adapt(base, {"image": image}, {"policy": "visual_expert"})

    def test_a_module_called_on_other_tokens_than_the_pass_has_says_so(self):
        _, model = build("llama", insertion={"policy": "visual_expert"}, replace_ends=False)
        mask = torch.ones(1, 3, dtype=torch.bool)
        context = AdapterContext(mask, mask.any(1).long())
        context.put(ROWS, split_rows(mask))
        with (
            provide_context(context),
            pytest.raises(adaptkit.ModelError, match=r"4 positions.* 3"),
        ):
            model.language_model.model.layers[0].mlp(torch.zeros(1, 4, 32))
