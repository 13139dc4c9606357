import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoProcessor, AutoTokenizer, Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

from adaptkit.errors import ModelError
from adaptkit.export import export_speech, speech_problems
from adaptkit.testing import tiny_tokenizer
from tests.unit.export.speech_workflows import (
    ENCODERS,
    OUTSIDE,
    PROJECTORS,
    hearing,
    save_whisper,
    speech_probe,
)
from tests.unit.export.workflows import INSIDE, logits, processor_of, workflow

TARGETS = ("qwen2-audio", "voxtral")
# Differences of rounding alone; the logits reach about 10
TOLERANCE = 1e-5

STOCK = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
import transformers

for job in json.load(open(sys.argv[1])):
    model_class = getattr(transformers, job["class"])
    model = model_class.from_pretrained(job["folder"], dtype=torch.float32).eval()
    inputs = load_file(job["inputs"])
    seen = inputs["attention_mask"].bool()
    with torch.no_grad():
        output = {"logits": model(**inputs).logits[seen]}
        output["ids"] = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    save_file(output, job["outputs"])
assert not [name for name in sys.modules if name.split(".")[0].startswith("adaptkit")]
"""
CLASSES = {"qwen2-audio": "Qwen2AudioForConditionalGeneration", "voxtral": "VoxtralForConditionalGeneration"}
CASES = [
    ("qwen2-audio", "llama", {}),
    ("qwen2-audio", "qwen2", {"replace_ends": False, "tie_word_embeddings": True}),
    ("voxtral", "llama", {"replace_ends": False, "tie_word_embeddings": True}),
    ("voxtral", "qwen2", {"insertion": {"policy": "projector_only"}, "replace_ends": False}),
    ("voxtral", "gpt2", {}),
]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """The folder of a tiny Whisper encoder."""
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, whisper):
    """For each case the workflow and what a process without adaptkit computed of its export."""
    root = tmp_path_factory.mktemp("exports")
    jobs, models = [], []
    for number, (target, family, options) in enumerate(CASES):
        model = hearing(whisper, target, family, **options)
        report = export_speech(model, None, root / f"{number}", target)
        save_file(speech_probe(target, model, report.placeholder_id)[1], root / f"{number}.inputs")
        models.append((model, report))
        paths = {"folder": f"{number}", "inputs": f"{number}.inputs", "outputs": f"{number}.outputs"}
        jobs.append({"class": CLASSES[target], **{key: str(root / path) for key, path in paths.items()}})
    (root / "jobs.json").write_text(json.dumps(jobs))
    run = subprocess.run(
        [sys.executable, "-c", STOCK, str(root / "jobs.json")], capture_output=True, text=True, cwd=root
    )
    assert run.returncode == 0, run.stderr
    return [(*model, load_file(root / f"{number}.outputs")) for number, model in enumerate(models)]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_stock_process_computes_what_the_workflow_computes(exported, number):
    model, report, theirs = exported[number]
    inputs = speech_probe(CASES[number][0], model, OUTSIDE)[0]
    ours = logits(model, inputs)
    assert report.added_rows == 1
    torch.testing.assert_close(theirs["logits"][:, : ours.shape[1]], ours, atol=TOLERANCE, rtol=TOLERANCE)
    width = inputs["input_ids"].shape[1]
    generated = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(theirs["ids"][:, width:], generated[:, width:])


@pytest.mark.parametrize("number", range(len(CASES)))
def test_older_libraries_find_what_they_look_for(exported, number):
    report = exported[number][1]
    names = load_file(report.directory / "model.safetensors")
    parts = ("audio_tower.", "multi_modal_projector.", "language_model.model.", "language_model.lm_head.weight")
    assert {next((part for part in parts if name.startswith(part)), name) for name in names} == set(parts)
    text = json.loads((report.directory / "config.json").read_text())["text_config"]
    assert text["architectures"][0].endswith(("ForCausalLM", "LMHeadModel"))


def test_half_precision_is_written(tmp_path, whisper):
    for target in TARGETS:
        report = export_speech(hearing(whisper, target), None, tmp_path / target, target, dtype=torch.bfloat16)
        assert {t.dtype for t in load_file(tmp_path / target / "model.safetensors").values()} <= {
            torch.bfloat16,
            torch.float32,  # stock Voxtral keeps positions so
        }
        assert report.logits_difference < 1


def test_low_rank_differences_are_merged(tmp_path, whisper):
    model = hearing(whisper, "voxtral", insertion={"policy": "lora", "rank": 2}, replace_ends=False)
    (problem,) = speech_problems(model, "voxtral")
    assert "--merge" in problem
    assert export_speech(model, None, tmp_path / "out", "voxtral", merge=True).logits_difference < TOLERANCE


# -- processors ------------------------------------------------------------------------------------------------------


def recordings(rate=16000):
    generator = np.random.default_rng(0)
    return [generator.uniform(-0.4, 0.4, int(rate * seconds)).astype(np.float32) for seconds in (0.3, 1.0, 0.611)]


@pytest.mark.parametrize("brackets", [{}, {"start": "<a>", "end": "</a>"}])
def test_the_qwen2_processor_makes_the_same_batch(tmp_path, whisper, brackets):
    model = hearing(whisper, "qwen2-audio", placeholder_id=INSIDE)
    model.config.modalities["audio"].update(brackets)
    processor = processor_of(model)
    report = export_speech(model, processor, tmp_path / "out", "qwen2-audio")
    assert report.media_difference <= 1e-5
    stock = AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(stock).__name__ == "Qwen2AudioProcessor"
    items = recordings()
    parts = [{"type": "audio", "audio": (item, 16000)} for item in items]
    content = [{"type": "text", "text": "hear: "}, parts[0], {"type": "text", "text": "\nand "}, *parts[1:]]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "noise"}]
    mine = processor.apply_chat_template(turns, tokenize=True, return_dict=True)
    text = stock.apply_chat_template(turns, tokenize=False)
    theirs = stock(text=text, audio=items, sampling_rate=16000, return_tensors="pt", add_special_tokens=False)
    assert torch.equal(theirs["input_ids"], mine["input_ids"])
    assert theirs["feature_attention_mask"].sum(1).tolist() == [30, 100, 62]
    ours = logits(model, mine)
    with torch.no_grad():
        found = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "out")(**theirs).logits[0]
    torch.testing.assert_close(found[:, : ours.shape[1]], ours, atol=TOLERANCE, rtol=TOLERANCE)


def test_voxtral_gets_tokenizer_template_and_feature_extractor(tmp_path, whisper):
    model = hearing(whisper, "voxtral")
    processor = processor_of(model, tiny_tokenizer())
    report = export_speech(model, processor, tmp_path / "out", "voxtral")
    assert (report.placeholder, report.media_difference) == ("[AUDIO]", None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "what?"}]}]
    assert tokenizer.apply_chat_template(messages, tokenize=False).count("[AUDIO]") == 1
    assert tokenizer.convert_tokens_to_ids("[AUDIO]") == report.placeholder_id
    assert WhisperFeatureExtractor.from_pretrained(tmp_path / "out").chunk_length == 2


def test_a_window_of_no_whole_seconds_exports_without_its_processor(tmp_path):
    whisper = save_whisper(tmp_path / "whisper", max_source_positions=60)
    model = hearing(whisper, "qwen2-audio")
    with pytest.raises(ModelError, match=r"window is 1\.2 seconds"):
        export_speech(model, processor_of(model), tmp_path / "out", "qwen2-audio")
    assert not (tmp_path / "out").exists()
    export_speech(model, None, tmp_path / "out", "qwen2-audio")


# -- what has no stock equal -----------------------------------------------------------------------------------------


def refused(model, target, words, tmp_path):
    (problem,) = speech_problems(model, target)
    assert words in problem
    with pytest.raises(ModelError, match="cannot become a stock"):
        export_speech(model, None, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["pool", "pool_before_norm", "hide_padding"])
def test_other_ways_to_pool_are_no_qwen2_audio(tmp_path, whisper, option):
    other = {"pool": 5, "pool_before_norm": False, "hide_padding": False}[option]
    wanted = str(ENCODERS["qwen2-audio"][option]).lower()
    model = hearing(whisper, "qwen2-audio", encoder={**ENCODERS["qwen2-audio"], option: other})
    refused(model, "qwen2-audio", f"the encoder lacks {option}: {wanted}; Qwen2-Audio averages", tmp_path)


@pytest.mark.parametrize("encoder", [{"stack": 2}, {"stack": 4, "trim": True}, {"stack": 4, "feature_layer": 1}])
def test_other_features_are_no_voxtral(tmp_path, whisper, encoder):
    words = {1: "stack: 4", 2: "feature_layer" if "feature_layer" in encoder else "trim: false"}[len(encoder)]
    refused(hearing(whisper, "voxtral", encoder=encoder), "voxtral", words, tmp_path)


def test_the_stack_follows_the_width_of_the_feed_forward_networks(tmp_path):
    whisper = save_whisper(tmp_path / "whisper", encoder_ffn_dim=64)
    export_speech(hearing(whisper, "voxtral", encoder={"stack": 2}), None, tmp_path / "out", "voxtral")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("projector", ["mlp2x_gelu", "mlp3x_gelu", {"name": "linear", "bias": False}, nn.Identity()])
def test_other_projectors(tmp_path, whisper, target, projector):
    if isinstance(projector, nn.Identity):
        projector = nn.Linear({"qwen2-audio": 32, "voxtral": 128}[target], 32, bias=target == "voxtral")
    refused(hearing(whisper, target, projector=projector), target, "the projector is", tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_other_encoders_policies_and_families(tmp_path, whisper, target):
    refused(workflow(projector=PROJECTORS[target], modality="audio"), target, "ClipEncoder over clip_vision", tmp_path)
    insertion = {"policy": "gated_inner_adapter", "placement": {"layers": [1]}}
    refused(hearing(whisper, target, insertion=insertion), target, "'gated_inner_adapter' wires", tmp_path)
    refused(hearing(whisper, target, "gemma2"), target, "soft-cap", tmp_path)
    refused(hearing(whisper, target, "phi"), target, "LM head has a bias", tmp_path)
