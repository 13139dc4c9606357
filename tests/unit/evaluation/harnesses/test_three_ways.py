"""The same answers by our class, by the harness's LLaVA class on the stock export, and by its OpenAI class."""

import argparse
import sys
import types

import pytest
import torch

import adaptkit
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.quiet import quiet_harness
from adaptkit.export.llava import export_llava
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.unit.serving.conftest import serve

TASK = "tiny_pictures"
CLASSES = "lmms_eval.models.chat"


@pytest.fixture(scope="module")
def session():
    """A vision workflow whose answers differ from picture to picture."""
    base = tiny_decoder("llama")
    torch.manual_seed(0)
    modality = {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu"}
    model = adaptkit.adapt(
        base, {"image": modality}, {"policy": "inner_adapter", "placement": {"layers": [1, 2]}}, True
    )
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.3 * torch.randn_like(tensor))
    processor = adaptkit.AdaptkitProcessor.from_model(model, tiny_tokenizer())
    with adaptkit.Session(base, {"vision": (model, processor)}) as opened:
        yield opened


@pytest.fixture
def answers(load):
    """What lmms-eval's own evaluator gets from a model, in the order of the documents."""
    with quiet_harness():
        from lmms_eval import evaluator

    loaded = types.SimpleNamespace(load_task_or_group=lambda names, form: load(TASK).content)
    unused = argparse.Namespace(
        output_path=None, process_with_media=False, reasoning_tags=None, agentic_trace_mode="basic"
    )

    def ask(model):
        with quiet_harness():
            results = evaluator.simple_evaluate(model=model, tasks=[TASK], task_manager=loaded, cli_args=unused)
        samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
        return [sample["filtered_resps"][0].strip() for sample in samples]  # the classes differ in this, scorers strip

    return ask


def test_three_ways_lead_to_the_same_answers(answers, session, tmp_path, monkeypatch):
    from adaptkit.evaluation.harnesses.lmms import AdaptkitChat

    ours = answers(AdaptkitChat(asker=Asker(session)))
    assert len(set(ours)) > 1

    export_llava(session.workflows["vision"], session.processor("vision"), tmp_path / "llava")
    for_films = types.ModuleType("decord")  # for which the class wants to import it
    for_films.VideoReader = for_films.cpu = None
    monkeypatch.setitem(sys.modules, "decord", for_films)
    with quiet_harness():
        from lmms_eval.models.chat.llava_hf import LlavaHf

        stock = LlavaHf(pretrained=str(tmp_path / "llava"), device="cpu", device_map="cpu", dtype="float32")
    assert answers(stock) == ours

    with quiet_harness(), serve(session) as url:
        from lmms_eval.models.chat.openai import OpenAICompatible

        client = OpenAICompatible(model_version="vision", base_url=f"{url}/v1", api_key="none", max_retries=1)
        assert answers(client) == ours
