"""`adaptkit generate`, and what loads of a run directory by itself."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image
from transformers import LlamaForCausalLM

import adaptkit
from adaptkit.cli import cli
from adaptkit.cli.generate import build_messages, show_answer
from adaptkit.errors import DataError, ModelError
from adaptkit.inference import Piece
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

WORKFLOWS = {"both": ("image", "depth"), "vision": ("image",)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with two untrained workflows, one of which takes two kinds of pictures."""
    folder = tmp_path_factory.mktemp("generate")
    tiny_decoder("llama").save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "encoder")
    base = LlamaForCausalLM.from_pretrained(folder / "base")
    for workflow, names in WORKFLOWS.items():
        encoder = {"name": "clip", "path": str(folder / "encoder")}
        modalities = {name: {"type": "image", "encoder": encoder, "projector": "linear"} for name in names}
        model = adaptkit.adapt(base, modalities)
        model.save_pretrained(folder / "run/final" / workflow)
        processor = adaptkit.AdaptkitProcessor.from_model(model, tiny_tokenizer())
        processor.save_pretrained(folder / "run/final" / workflow)
    for number in range(3):
        Image.effect_noise((32, 32), 30 + 60 * number).convert("RGB").save(folder / f"{number}.png")
    (folder / "words.txt").write_text("no picture")
    return folder / "run"


@pytest.fixture
def ask(run, monkeypatch):
    monkeypatch.chdir(run.parent)

    def invoke(*arguments, checkpoint="run", prompt="which?"):
        command = ["generate", checkpoint, "--prompt", prompt, "--max-new-tokens", "4", *arguments]
        return CliRunner().invoke(cli, command)

    return invoke


@pytest.fixture
def loaded(monkeypatch):
    """Names of the workflows that sessions were opened with."""
    names = []
    build = adaptkit.Session.__init__

    def note(session, base, workflows=None, **options):
        names.extend(workflows or {})
        build(session, base, workflows, **options)

    monkeypatch.setattr(adaptkit.Session, "__init__", note)
    return names


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], []),
        (["--workflow", "text", "--system", "Be brief."], []),
        (["--image", "0.png", "--image", "1.png"], ["both"]),
        (["--image", "0.png", "--workflow", "vision"], ["vision"]),
        (["--media", "depth=0.png"], ["both"]),
        (["--workflow", "vision"], ["vision"]),
        (["--temperature", "1", "--top-p", "0.5", "--seed", "3"], []),
    ],
)
def test_only_the_workflow_that_answers_is_loaded(ask, loaded, arguments, names):
    result = ask(*arguments)
    assert result.exit_code == 0, result.output
    assert loaded == names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--image", "words.txt"], "words.txt"),
        (["--media", "imge=0.png"], "'image'"),
        (["--audio", "0.png"], "'audio'"),
        (["--media", "depth=0.png", "--workflow", "vision"], "both"),
        (["--image", "0.png", "--workflow", "text"], "vision"),
        (["--workflow", "visoin"], "'vision'"),
        (["--top-p", "0.5"], "--temperature"),
        (["--top-p", "0", "--temperature", "1"], "top-p"),
        (["--stop", ""], "--stop"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(ask, arguments, words):
    result = ask(*arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


@pytest.mark.parametrize(("prompt", "words"), [(" ", "--prompt"), ("<image> ?", "--media image"), ("a " * 900, "512")])
def test_an_empty_or_long_prompt_or_a_tag_without_its_file_is_refused(ask, prompt, words):
    result = ask(prompt=prompt)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_an_answer_ends_before_a_stop_text(ask):
    whole = ask().output.rstrip("\n")
    assert whole
    assert ask("--stop", "never said", "--stop", whole[0]).output == "\n"
    assert ask("--stop", "never said").output.rstrip("\n") == whole


def test_a_workflows_own_folder_answers_as_its_run_does(ask):
    picture = ["--image", "0.png", "--workflow", "vision"]
    assert ask(*picture, checkpoint="run/final/vision").output == ask(*picture).output != ""


def test_media_keep_the_order_in_which_they_were_given(ask, monkeypatch):
    seen = []

    def note(processor, prompt, media, system):
        seen.extend(media)
        return build_messages(processor, prompt, media, system)

    monkeypatch.setattr("adaptkit.cli.generate.build_messages", note)
    given = [("image", "0.png"), ("depth", "1.png"), ("image", "2.png")]
    result = ask("--image", "0.png", "--media", "depth=1.png", "--image=2.png", prompt="see <image>")
    assert result.exit_code == 0, result.output
    assert seen == given


def test_media_without_a_tag_stand_before_the_prompt(run):
    processor = adaptkit.load_processor(run / "final" / "both")
    media = [("image", "a"), ("depth", "b"), ("image", "c")]
    [turn] = build_messages(processor, "see <image>!", media, None)
    parts = [part[part["type"]] for part in turn["content"]]
    assert parts == ["b", "c", "\n", "see ", "a", "!"]


def test_a_terminal_sees_each_piece_when_it_is_there(capsys):
    class Growing:
        def __iter__(self):
            for text in ("a ", "", "word"):
                yield Piece(text, ())
                shown.append(capsys.readouterr().out)

    shown = []
    show_answer(Growing(), as_it_grows=True)
    assert (shown, capsys.readouterr().out) == (["a ", "", "word"], "\n")


def test_a_run_with_several_workflows_says_how_to_load_one(run, tmp_path):
    for load in (adaptkit.load, adaptkit.load_processor):
        with pytest.raises(ModelError) as raised:
            load(run)
        for words in (f'adaptkit.load("{run}/final/vision")', "both", "Session.open"):
            assert words in str(raised.value)
    (tmp_path / "empty" / "final").mkdir(parents=True)
    with pytest.raises(ModelError, match="no finished workflow"):
        adaptkit.load(tmp_path / "empty")


def test_the_only_workflow_of_a_run_is_loaded(run, tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "vision").symlink_to(run / "final" / "vision")
    (tmp_path / "final" / ".staging").mkdir()
    assert adaptkit.load(tmp_path).config.layer_map == adaptkit.load(run / "final" / "vision").config.layer_map
    assert adaptkit.load_processor(tmp_path).modalities.keys() == {"image"}


def test_a_session_opens_the_workflows_it_is_asked_for(run):
    with adaptkit.Session.open(run, workflows=["text"]) as session:
        assert (session.modalities, session.default) == ({"text": []}, "text")
    with adaptkit.Session.open(run, workflows=["vision"]) as session:
        assert session.modalities == {"text": [], "vision": ["image"]}
    with pytest.raises(DataError, match="'vision'"):
        adaptkit.Session.open(run, workflows=["visoin"])


def test_workflows_of_different_modalities_are_described_over_one_base(run):
    result = CliRunner().invoke(cli, ["inspect", str(run), "--json"])
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.output)) == ["both", "vision"]
