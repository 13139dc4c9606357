"""Generation's options with placeholders outside the vocabulary, and what a workflow shares with stock models."""

import copy
import pickle

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    WatermarkingConfig,
)

from adaptkit.errors import DataError
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, build

INSIDE = 258  # a word that no prompt holds


class PenaliseSeen(LogitsProcessor):
    """Of a user's own: looks every id of the prompt up in the scores."""

    def __call__(self, input_ids, scores):
        return scores.scatter(1, input_ids, scores.gather(1, input_ids) - 1.0)


class StopAtWords(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        assert input_ids.max() < 259
        return torch.full((len(input_ids),), input_ids.shape[1] > 30)


@pytest.fixture(scope="module")
def outside():
    return build("llama")[1]


@pytest.fixture(scope="module")
def inside(outside):
    """The same workflow, its placeholder a word of the vocabulary."""
    model = copy.deepcopy(outside)
    model.config.modalities["image"]["placeholder_id"] = INSIDE
    return model


@pytest.fixture(scope="module")
def inputs(outside):
    return batch_of(outside, num_items=(1,)).inputs


def generated(model, inputs, **options):
    prompt = inputs["input_ids"]
    if INSIDE in {entry["placeholder_id"] for entry in model.config.modalities.values()}:
        inputs = {**inputs, "input_ids": prompt.masked_fill(prompt == PLACEHOLDER_ID, INSIDE)}
    return model.generate(**inputs, max_new_tokens=5, do_sample=False, **options)[:, prompt.shape[1] :].tolist()


OPTIONS = {
    "sequences": {"no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 3, "bad_words_ids": [[5], [7, 8]]},
    "watermark": {"watermarking_config": WatermarkingConfig()},
    "prompt lookup, penalties": {
        "prompt_lookup_num_tokens": 5,
        "repetition_penalty": 1.3,
        "encoder_repetition_penalty": 1.2,
    },
    "beams": {"num_beams": 2, "encoder_repetition_penalty": 1.2},
    "one's own processor": {"logits_processor": LogitsProcessorList([PenaliseSeen()])},
    "one's own criterion": {"stopping_criteria": StoppingCriteriaList([StopAtWords()])},
    "a prefix function": {"prefix_allowed_tokens_fn": lambda row, ids: [5, 6] if ids.max() < 259 else None},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_generates_alike_wherever_the_placeholder_lies(outside, inside, inputs, options):
    assert generated(outside, inputs, **options) == generated(inside, inputs, **options)


def test_the_base_drafts_for_its_workflow(outside, inputs):
    assert generated(outside, inputs, assistant_model=outside.base) == generated(outside, inputs)


def test_generation_from_embeddings_equals_generation_from_ids(outside):
    words = torch.tensor([[5, 9, 30, 7]])
    embeds = outside.get_input_embeddings()(words)
    options = {"max_new_tokens": 6, "do_sample": False}
    assert (
        outside.generate(inputs_embeds=embeds, **options).tolist() == outside.generate(words, **options)[:, 4:].tolist()
    )


def test_what_would_lose_the_place_of_media_is_refused_by_name(outside, inputs):
    with pytest.raises(DataError, match="inputs_embeds"):
        outside.generate(**inputs, inputs_embeds=torch.zeros(1, 4, 32))
    with pytest.raises(DataError, match="prefill_chunk_size"):
        outside.generate(**inputs, prefill_chunk_size=4)


def test_a_tuple_holds_what_the_output_holds(outside, inputs):
    options = {**inputs, "labels": inputs["input_ids"], "output_hidden_states": True}
    for training in (False, True):
        outside.train(training)
        output, values = outside(**options), outside(**options, return_dict=False)
        assert next(iter(output)) == "loss"
        assert len(values) == len(output)
        assert torch.equal(values[0], output.loss)
    outside.eval()


@pytest.mark.parametrize("policy", ["inner_adapter", "gated_cross_attention"])
def test_workflows_are_pickled_and_copied_whole(policy):
    placement = {"placement": {"layers": [1, 3]}}
    _, model = build("llama", insertion={"policy": policy, **placement})
    expected = model(**batch_of(model, num_items=(1,)).inputs).logits
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(copied(**batch_of(model, num_items=(1,)).inputs).logits, expected)
        shared = {id(p) for p in copied.base.parameters()} & {id(p) for p in copied.parameters()}
        assert shared, "a copy still shares its base's tensors"


def test_the_trunk_gives_what_the_head_is_given(outside, inputs):
    """As TRL's trainers compute their loss."""
    expected = outside(**inputs)
    trunk = outside.base_model(**inputs, use_cache=False, output_hidden_states=True)
    assert torch.equal(outside.get_output_embeddings()(trunk.last_hidden_state), expected.logits)
    assert len(trunk.hidden_states) == outside.language_model.config.num_hidden_layers + 1
    assert outside.get_decoder() is outside.language_model
