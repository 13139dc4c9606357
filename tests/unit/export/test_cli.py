import pytest
from click.testing import CliRunner
from transformers import AutoProcessor, LlavaForConditionalGeneration

from adaptkit.cli import cli
from adaptkit.testing import tiny_tokenizer
from tests.unit.export.workflows import save_towers, workflow


@pytest.fixture
def saved(tmp_path):
    """A run directory with two finished workflows on one base."""
    encoder = {"name": "clip", "path": save_towers(tmp_path)["clip"]}
    first = workflow(encoder=encoder)
    first.base.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    first.base.name_or_path = str(tmp_path / "base")
    first.save_pretrained(tmp_path / "run" / "final" / "first")
    second = workflow(encoder=encoder, base=first.base, insertion={"policy": "lora", "rank": 2})
    second.save_pretrained(tmp_path / "run" / "final" / "second")
    return tmp_path / "run"


def run(*arguments):
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_a_run_exports_its_first_workflow(saved, tmp_path):
    result = run(saved, "--to", "llava", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"Wrote {tmp_path / 'out'}; logits differ by at most" in result.output
    assert (
        "<image> (id 259) stands for the features of a medium, for which embedding and head got 1 row" in result.output
    )
    assert "media values differ by at most" in result.output
    LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    AutoProcessor.from_pretrained(tmp_path / "out")


def test_a_low_rank_workflow_exports_merged_or_as_peft(saved, tmp_path):
    refused = run(saved, "--workflow", "second", "--to", "llava", "--output", tmp_path / "out")
    assert refused.exit_code == 2
    assert "--merge" in refused.output
    merged = run(saved, "--workflow", "second", "--to", "llava", "--merge", "--output", tmp_path / "out")
    assert merged.exit_code == 0, merged.output
    result = run(saved, "--workflow", "second", "--to", "peft", "--output", tmp_path / "peft")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "peft" / "adapter_config.json").is_file()


def test_a_dtype_may_be_chosen(saved, tmp_path):
    result = run(saved, "--to", "llava", "--dtype", "bfloat16", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert str(LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").dtype) == "torch.bfloat16"


@pytest.mark.parametrize(("target", "title"), [("qwen2-audio", "Qwen2-Audio"), ("voxtral", "Voxtral")])
def test_speech_targets_say_what_they_need_and_what_is_here(saved, tmp_path, target, title):
    result = run(saved, "--to", target, "--output", tmp_path / "out")
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert f"cannot become a stock {title}" in said
    assert "its encoder of 'image' is a ClipEncoder over clip_vision_model" in said
    assert "the encoder of a Whisper model" in said
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together(saved, tmp_path):
    result = run(saved, "--to", "peft", "--merge", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "do not go with --to peft" in result.output
