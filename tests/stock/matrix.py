"""Stock Llava against a workflow, call by call: measured here, written to `docs/reference/stock-llava.md`.

`python -m tests.stock.matrix --write` measures everything and writes the page; a test fails where the page no longer
says what is measured. Each call is an expression, evaluated once with a stock checkpoint that `adaptkit export` wrote
and its `LlavaProcessor`, and once with the workflow it was made of.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import pickle
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

import adaptkit
from adaptkit.errors import AdaptkitError
from adaptkit.export.llava import export_llava
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.measured_pages import print_or_write, version

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "stock-llava.md"

REFUSALS = (AdaptkitError, TypeError, ValueError, AttributeError, NotImplementedError)
"""What a call may end with that is not supported."""


@dataclass(frozen=True)
class Group:
    """Calls that have their beginning in common.

    Attributes:
        title: Heading.
        call: What is evaluated, with `{}` in place of what differs.
        rows: What differs, by what a reader must know where both work and give different results.
        intro: A paragraph.
        setup: Statements to run before each row.
        shown: `call` for readers, where it has more in it than they need.
    """

    title: str
    call: str
    rows: Mapping[str, str]
    intro: str = ""
    setup: str = ""
    shown: str = ""


@dataclass
class Subject:
    """A model with its processor, and the names that calls use."""

    folder: str
    model: Any
    processor: Any
    placeholder_id: int
    names: dict[str, Any] = field(default_factory=dict)


def _rows(*calls: str, **noted: str) -> dict[str, str]:
    return dict.fromkeys(calls, "") | noted


GROUPS = [
    Group(
        "Loading",
        "described(AutoModelForImageTextToText.from_pretrained(folder, {}))",
        _rows(
            *("dtype=torch.bfloat16", "dtype='auto'", "torch_dtype=torch.bfloat16", "attn_implementation='eager'"),
            *("attn_implementation={'text_config': 'eager'}", "attn_implementation='nope'", "device_map='cpu'"),
            *("low_cpu_mem_usage=True", "max_memory={'cpu': '1GB'}", "offload_folder=new_folder"),
            *("output_loading_info=True", "output_attentions=True", "use_safetensors=True", "variant='fp16'"),
            *("trust_remote_code=False", "local_files_only=True", "cache_dir=new_folder", "token=None"),
            *("generation_config=GenerationConfig(max_new_tokens=3)", "config=AutoConfig.from_pretrained(folder)"),
            *("revision='main'", "ignore_mismatched_sizes=True", "key_mapping={'a': 'b'}", "state_dict={}"),
            *("attn_implementatoin='eager'",),
        ),
        "The first argument is a folder or a hub id. Arguments that a workflow does not use itself go to its base.",
        shown="AutoModelForImageTextToText.from_pretrained(folder, {})",
    ),
    Group(
        "Auto classes",
        "named({})",
        _rows(
            *(
                "AutoModelForImageTextToText.from_pretrained(folder)",
                "AutoModelForMultimodalLM.from_pretrained(folder)",
            ),
            *("AutoProcessor.from_pretrained(folder)", "AutoConfig.from_pretrained(folder)"),
            *("AutoTokenizer.from_pretrained(folder)", "AutoModel.from_pretrained(folder)"),
            *("AutoModelForCausalLM.from_pretrained(folder)",),
            *("AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))",),
            *("AutoProcessor.from_pretrained(folder, padding_side='left')",),
            *("AutoProcessor.from_pretrained(folder, chat_template='{{ 1 }}')",),
            *("AutoProcessor.from_pretrained(folder, use_fast=True)", "AutoProcessor.from_pretrained(folder, foo=1)"),
            *("AutoProcessor.from_pretrained(folder, do_resize=False)",),
        ),
        shown="{}",
    ),
    Group(
        "Saving",
        "saved(model.save_pretrained, {})",
        _rows(
            *("max_shard_size='20KB'", "is_main_process=False", "safe_serialization=True", "variant='fp16'"),
            *(
                "state_dict=own_state(model)",
                "save_original_format=True",
                "token=None",
                "foo=1",
            ),
        ),
        "A workflow writes its own tensors. `push_to_hub` is tested apart.",
        shown="model.save_pretrained(new_folder, {})",
    ),
    Group(
        "The processor",
        "processor({})",
        _rows(
            *("images=image, text='<image> a', return_tensors='pt'", "image, '<image> a', return_tensors='pt'"),
            *("'<image> a', image, return_tensors='pt'", "text='a', return_tensors='pt'"),
            *("images=image, return_tensors='pt'", "**two, padding=True, return_tensors='pt'"),
            *("**two, padding='longest', return_tensors='pt'",),
            *("**two, padding='max_length', max_length=40, return_tensors='pt'",),
            *("**two, padding=True, padding_side='right', return_tensors='pt'",),
            *(
                "**two, padding=True, pad_to_multiple_of=8, return_tensors='pt'",
                "**two, padding=False, return_tensors='pt'",
            ),
            *("**two, padding=True, truncation=True, max_length=20, return_tensors='pt'",),
            *("images=image, text='<image> a', truncation=True, max_length=5, return_tensors='pt'",),
            *("text='a b c d', max_length=3, return_tensors='pt'", "text='a b c d', stride=2"),
            *("images=[[image], [image, image]], text=['<image> a', two_tags], padding=True, return_tensors='pt'",),
            *("images=image, text='<image> a', add_special_tokens=False, return_tensors='pt'",),
            *("text='a', return_attention_mask=False, return_tensors='pt'",),
            *("images=image, text='<image> a', return_mm_token_type_ids=True, return_tensors='pt'",),
            *("text='a', return_token_type_ids=True, return_tensors='pt'",),
            *("text='a', return_special_tokens_mask=True, return_tensors='pt'",),
            *("text='a', return_length=True, return_tensors='pt'", "text='a', verbose=False, return_tensors='pt'"),
            *("**two, text_kwargs={'padding': True}, return_tensors='pt'",),
            *("**two, text_kwargs={'padding': True}, padding=True, return_tensors='pt'",),
            *("text='a', common_kwargs={'return_tensors': 'pt'}", "text='a', images_kwargs={}, return_tensors='pt'"),
            *("images=image, text='<image> a', images_kwargs={'do_resize': False}",),
            *("images=image, text='<image> a', do_rescale=False", "images=image, text='<image> a', size=16"),
            *("text='a', return_offsets_mapping=True", "text='a', return_overflowing_tokens=True"),
            *("text=['a'], is_split_into_words=True", "text='a', text_pair='b'", "text='a', text_target='b'"),
            *("text='a', audio=[b'']", "text='a', videos=[image]", "text='a', paddin=True", "text=['a', ['b']]"),
            *("images=[image, image], text='<image> a'", "text='<image> a'", "text='a', return_tensors='tf'"),
            *("text='a', return_tensors='np'",),
        )
        | {
            "**two, return_tensors='pt'": "rows of unequal length are padded where padding is not given",
            "images=image, text='<image> a'": "tensors by default; `return_tensors=None` gives lists",
        },
        "`two` are two texts of different lengths with a picture each. Batches are compared value by value.",
    ),
    Group(
        "Chat templates",
        "processor.apply_chat_template({})",
        _rows(
            *("messages", "messages, add_generation_prompt=True", "placed, add_generation_prompt=True"),
            *("messages, **ids", "[messages, messages], **ids", "messages, tokenize=True, return_tensors='pt'"),
            *("[messages, longer], **ids, padding=True", "messages, **ids, processor_kwargs={'padding': True}"),
            *("placed, **ids, processor_kwargs={'images': [image]}", "placed, **ids"),
            *("messages, **ids, return_mm_token_type_ids=True", "messages, **ids, truncation=True, max_length=9"),
            *("messages, **ids, truncation=True, max_length=99", "messages, chat_template='{{ messages[0].role }}'"),
            *("longer, chat_template=thinking, enable_thinking=True", "messages, enable_thinking=True"),
            *("longer, chat_template=with_tools, tools=[{'name': 'f'}]", "messages, tools=[{'name': 'f'}]"),
            *("messages, documents=[{'title': 'a', 'text': 'b'}]", "answered, continue_final_message=True"),
            *("answered, continue_final_message=True, **ids", "messages, paddin=True, **ids"),
            *("answered, continue_final_message=True, add_generation_prompt=True",),
            *("answered, **ids, return_assistant_tokens_mask=True", "messages, **ids, sanitize_control_tokens=True"),
            *("messages, load_audio_from_video=True, **ids", "messages, add_generation_promt=True", "[]"),
        ),
        "`ids` is `tokenize=True, return_dict=True, return_tensors='pt'`; in `placed` the picture has no source.",
    ),
    Group(
        "Decoding",
        "processor.{}",
        _rows(
            *("decode(rows[0], skip_special_tokens=True)", "decode(rows, skip_special_tokens=True)", "decode(40)"),
            *("batch_decode(rows, skip_special_tokens=True)", "post_process_image_text_to_text(rows)"),
            *("post_process_multimodal_output(rows)", "image_token", "tokenizer.padding_side", "chat_template is None"),
            *("image_processor.do_resize", "patch_size"),
        )
        | {
            "decode(rows[0])": "placeholders are left out",
            "model_input_names": "the same names in another order",
        },
    ),
    Group(
        "The forward pass",
        "compared(model(**inputs, {}))",
        _rows(
            *("output_hidden_states=True", "output_attentions=True", "return_dict=True", "use_cache=False"),
            *("logits_to_keep=2", "labels=labels(inputs)", "position_ids=positions", "past_key_values=DynamicCache()"),
        )
        | {
            "return_dict=False": "a stock Llava also gives `image_hidden_states`",
        },
        "Logits are those of the vocabulary: the stock checkpoint has a row more, for `<image>`.",
        shown="model(**inputs, {})",
    ),
    Group(
        "Generation",
        "model.generate(**{{**inputs, 'max_new_tokens': 4, 'do_sample': False, {}}})",
        _rows(
            *("'num_beams': 2", "'num_beams': 2, 'num_return_sequences': 2", "'repetition_penalty': 1.5"),
            *("'encoder_repetition_penalty': 1.5", "'no_repeat_ngram_size': 2", "'encoder_no_repeat_ngram_size': 2"),
            *("'prompt_lookup_num_tokens': 3", "'assistant_model': model", "'sequence_bias': [[[5], 2.0]]"),
            *(
                "'bad_words_ids': [[5], [7, 8]]",
                "'suppress_tokens': [5]",
                "'min_new_tokens': 3",
                "'guidance_scale': 1.5",
            ),
            *("'exponential_decay_length_penalty': (1, 1.1)", "'logits_processor': [Penalise()]"),
            *("'stopping_criteria': [StopLate()]", "'stop_strings': ['a'], 'tokenizer': processor.tokenizer"),
            *("'prefix_allowed_tokens_fn': allowed", "'streamer': TextStreamer(processor.tokenizer)"),
            *("'generation_config': GenerationConfig(max_new_tokens=3)", "'max_new_tokens': None, 'max_length': 30"),
            *("'cache_implementation': 'static'", "'use_cache': False"),
            *("'return_dict_in_generate': True, 'output_scores': True", "'max_new_tokenz': 3"),
            *("'past_key_values': DynamicCache()", "'renormalize_logits': True", "'prefill_chunk_size': 4"),
            *("'image_sizes': torch.tensor([[32, 32]])", "'vision_feature_layer': -2"),
        )
        | {
            "'pixel_values': None": "",
            "'assistant_model': base": "",
        },
        "The placeholder lies outside the workflow's vocabulary, and inside the stock checkpoint's.",
        shown="model.generate(**inputs, max_new_tokens=4, do_sample=False, {})",
    ),
    Group(
        "Pipelines",
        "answers(pipeline({}, generate_kwargs={{'max_new_tokens': 3, 'do_sample': False}}, return_full_text=False))",
        _rows(
            *("text=messages", "text=[messages, longer]", "text=[messages, messages], batch_size=2", "text=answered"),
            *("images=image, text='<image> a'", "text='hello'", "text=messages, processor_kwargs={'padding': True}"),
            *("text=messages, stop_sequence='a'", "text=messages, paddin=True"),
        ),
        "",
        "pipeline = pipeline_of('image-text-to-text')",
        shown="pipeline('image-text-to-text', model=model, processor=processor)({})",
    ),
    Group(
        "Any-to-any pipelines",
        "answers(pipeline({}, generate_kwargs={{'max_new_tokens': 3, 'do_sample': False}}, return_full_text=False))",
        _rows("text=messages", "text=[messages, messages], batch_size=2", "images=image, text='<image> a'"),
        "",
        "pipeline = pipeline_of('any-to-any')",
        shown="pipeline('any-to-any', model=model, processor=processor)({})",
    ),
    Group(
        "Methods of models",
        "{}",
        _rows(
            *("compared(copy.deepcopy(model)(**inputs))", "compared(pickle.loads(pickle.dumps(load()))(**inputs))"),
            *("compared(through_torch_save(load())(**inputs))", "pickle.loads(pickle.dumps(processor))(text='a')"),
            *(
                "load().to(torch.bfloat16).dtype",
                "attention(changed(load(), lambda m: m.set_attn_implementation('eager')))",
            ),
            *("changed(load(), lambda m: m.gradient_checkpointing_enable()).is_gradient_checkpointing",),
            *(
                "load().enable_input_require_grads()",
                "load().tie_weights()",
                "str(model.load_state_dict(model.state_dict()))",
            ),
            *("named(model.get_input_embeddings())", "named(model.get_output_embeddings())"),
            *(
                "load().resize_token_embeddings(300).weight.shape",
                "load().set_input_embeddings(torch.nn.Embedding(300, 32))",
            ),
            *("model.can_generate()", "model.num_parameters() > 0", "model.get_memory_footprint() > 0"),
            *("model.generate(inputs_embeds=embeds(model), max_new_tokens=4, do_sample=False)",),
            *("model.base_model(**inputs).last_hidden_state.shape", "model.main_input_name", "model.output_modalities"),
            *("model.model", "model.get_image_features(**pixels)"),
        )
        | {
            "type(model.get_decoder()).__name__": "the decoder is a causal LM, with its head",
            "sorted(model.input_modalities)": "",
        },
    ),
    Group(
        "Training",
        "{}",
        _rows(
            "trained(model)",
        ),
        "transformers' `Trainer`, one step, and another one resumed from its checkpoint. TRL's `SFTTrainer` 1.16 was "
        "tried by hand, on messages with pictures: it trains both.",
    ),
]


# -- measuring ---------------------------------------------------------------------------------------------------------


@functools.cache
def subjects() -> dict[str, Subject]:
    """The stock checkpoint and the workflow it was made of."""
    folder = Path(tempfile.mkdtemp())
    tiny_decoder("llama").save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "encoder")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    encoder = {"name": "clip", "path": str(folder / "encoder")}
    insertion = {"policy": "inner_adapter", "placement": {"layers": [0, 1]}}
    model = adaptkit.adapt(base, {"image": {"encoder": encoder}}, insertion, replace_ends=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(folder / "workflow")
    processor = adaptkit.AdaptkitProcessor.from_model(model)
    processor.save_pretrained(folder / "workflow")
    report = export_llava(model, processor, folder / "stock")
    stock = transformers.LlavaForConditionalGeneration.from_pretrained(folder / "stock").eval()
    stock_processor = transformers.LlavaProcessor.from_pretrained(folder / "stock", backend="pil")
    return {
        "stock": Subject(str(folder / "stock"), stock, stock_processor, report.placeholder_id),
        "workflow": Subject(str(folder / "workflow"), model, processor, processor.placeholder_ids["image"]),
    }


class Penalise(transformers.LogitsProcessor):
    def __call__(self, input_ids, scores):
        return scores.scatter(1, input_ids, scores.gather(1, input_ids) - 1.0)


class StopLate(transformers.StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] > 24)


def _names(subject: Subject) -> dict[str, Any]:
    """What calls refer to, made anew for each."""
    image = Image.new("RGB", (40, 24), (200, 30, 30))
    text = {"type": "text", "text": "what?"}
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, text]}]
    words = torch.tensor([[40, 41, 42, 43, 44, 60, 61]])
    input_ids = torch.cat([words[:, :3], torch.full((1, 16), subject.placeholder_id), words[:, 2:]], 1)
    pixels = {"pixel_values": torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))}
    turns = "{% for m in messages %}{{ m['role'] }};{% endfor %}"

    def load(**options):
        return transformers.AutoModelForImageTextToText.from_pretrained(subject.folder, **options)

    def saved(save, **options):
        with tempfile.TemporaryDirectory() as folder:
            save(folder, **options)
            return len([*Path(folder).glob("*.safetensors")]) > 1, (Path(folder) / "config.json").is_file()

    def pipeline_of(task):
        return transformers.pipeline(task, model=subject.model, processor=subject.processor)

    def described(loaded):
        if isinstance(loaded, tuple):
            return described(loaded[0]), {name: len(values) for name, values in loaded[1].items()}
        return str(loaded.dtype), attention(loaded), loaded.generation_config.max_new_tokens, loaded.training

    def through_torch_save(model):
        stream = io.BytesIO()
        torch.save(model, stream)
        stream.seek(0)
        return torch.load(stream, weights_only=False)

    return {
        **{name: getattr(transformers, name) for name in _LIBRARY},
        "torch": torch, "copy": copy, "pickle": pickle, "Penalise": Penalise, "StopLate": StopLate,
        "base": subjects()["workflow"].model.base,
        "folder": subject.folder, "new_folder": tempfile.gettempdir(), "model": subject.model,
        "processor": subject.processor, "image": image, "messages": messages,
        "placed": [{"role": "user", "content": [{"type": "image"}, text]}],
        "longer": [{"role": "user", "content": "only words, and more of them than before"}],
        "answered": [*messages, {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]}],
        "two": {"images": [image, image], "text": ["<image> a", "<image> a longer text"]},
        "two_tags": "<image><image>",
        "ids": {"tokenize": True, "return_dict": True, "return_tensors": "pt"},
        "thinking": "{% if enable_thinking %}T{% endif %}" + turns,
        "with_tools": "{% for t in tools %}{{ t['name'] }}{% endfor %}" + turns,
        "rows": torch.tensor([[40, 41, subject.placeholder_id, 42], [43, 44, 45, 2]]),
        "pixels": pixels, "inputs": {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **pixels},
        "positions": torch.arange(input_ids.shape[1])[None],
        "labels": lambda inputs: inputs["input_ids"].masked_fill(input_ids == subject.placeholder_id, -100),
        "embeds": lambda model: model.get_input_embeddings()(words), "changed": changed,
        "allowed": lambda row, ids: [5, 6, 7] if int(ids.max()) < 260 else [8],
        "own_state": lambda m: m.trainable_state_dict() if hasattr(m, "trainable_state_dict") else m.state_dict(),
        "load": load, "saved": saved, "described": described, "attention": attention, "trained": trained,
        "named": named, "compared": compared, "answers": answers, "pipeline_of": pipeline_of,
        "through_torch_save": through_torch_save,
    }  # fmt: skip


_LIBRARY = (
    *("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForCausalLM", "AutoModel", "AutoProcessor"),
    *("AutoConfig", "AutoTokenizer", "GenerationConfig", "DynamicCache", "TextStreamer"),
)


def attention(model):
    return model.get_decoder().config._attn_implementation


def changed(model, change):
    change(model)
    return model


def named(value):
    """The kind of a thing, whichever of the two it belongs to."""
    return re.sub(r"^(Adaptkit|Llava)(Model)?", "", type(value).__name__)


def compared(output):
    """An output without what only one of the two has room for."""
    if isinstance(output, tuple):
        return [compared(value) for value in output]
    if isinstance(output, torch.Tensor):
        return output[..., :259] if output.shape[-1:] in ((259,), (260,)) else output
    if not isinstance(output, Mapping):
        return type(output).__name__
    values = {name: output.get(name) for name in ("loss", "logits", "hidden_states", "attentions")}
    if values["loss"] is not None:  # over a vocabulary that is a word larger
        values["loss"] = round(float(values["loss"]), 1)
    return {name: compared(value) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def answers(results):
    flat = results if isinstance(results[0], dict) else [one for row in results for one in row]
    return [
        one["generated_text"] if isinstance(one["generated_text"], str) else one["generated_text"][-1]["content"]
        for one in flat
    ]


def trained(model):
    rows = [{"input_ids": torch.arange(3, 9) + i, "labels": torch.arange(3, 9) + i} for i in range(4)]
    with tempfile.TemporaryDirectory() as folder:

        def trainer(steps):
            settings = {
                "max_steps": steps,
                "save_steps": 1,
                "per_device_train_batch_size": 2,
                "report_to": [],
            }
            arguments = transformers.TrainingArguments(folder, use_cpu=True, disable_tqdm=True, **settings)
            return transformers.Trainer(copy.deepcopy(model), arguments, train_dataset=rows)

        first = trainer(1).train().training_loss
        # The stock head has a row more, and so a slightly larger loss
        return round(first, 1), trainer(2).train(resume_from_checkpoint=True).global_step


def _plain(value: Any, subject: Subject) -> Any:
    """A result without what differs between two models in any case."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            return [round(one, 3) for one in value.detach().float().flatten().tolist()[:2000]], tuple(value.shape)
        return value.masked_fill(value == subject.placeholder_id, -1).tolist()
    if hasattr(value, "sequences"):
        return _plain(value.sequences, subject)
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if k != "past_key_values"}
        return {str(k): _plain(v, subject) for k, v in sorted(kept.items())}
    if isinstance(value, list | tuple):
        return [_plain(one, subject) for one in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return str(value) if isinstance(value, torch.dtype | torch.Size) else type(value).__name__


@dataclass(frozen=True)
class Result:
    """What a call did: a value, or what it was ended by."""

    value: Any = None
    error: BaseException | None = None


def run(group: Group, row: str, subject: Subject) -> Result:
    """Evaluate one call."""
    names = _names(subject)
    with warnings.catch_warnings(), torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            exec(group.setup, names)
            value = eval(group.call.format(row), names)
        except (NameError, SyntaxError):
            raise
        except Exception as error:
            return Result(error=error)
    return Result(_plain(value, subject))


@functools.cache
def measured(index: int) -> dict[str, tuple[str, str]]:
    """For each row of a group, what a stock Llava does and what a workflow does."""
    group = GROUPS[index]
    return {row: _cells(group, row, note) for row, note in group.rows.items()}


def _cells(group: Group, row: str, note: str) -> tuple[str, str]:
    stock, ours = (run(group, row, subject) for subject in subjects().values())
    first = "works" if stock.error is None else "fails"
    if ours.error is not None:
        assert isinstance(ours.error, REFUSALS) or stock.error is not None, f"{group.title}: {row}: {ours.error!r}"
        alike = type(ours.error) is type(stock.error) and not isinstance(ours.error, AdaptkitError)
        return first, f"{'fails alike' if alike else 'refused'}: {_reason(ours.error)}"
    if stock.error is not None:
        return first, "works"
    if stock.value == ours.value:
        return first, "same"
    assert note, f"{group.title}: {row}: {stock.value!r:.300} is not {ours.value!r:.300}, and no note says why"
    return first, note


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()[0]
    for subject in subjects().values():
        text = text.replace(str(Path(subject.folder).parent), "…")
    text = re.sub(r"<class '([^']*)'>", r"\1", text).replace("`", "'")
    text = re.sub(r"AdaptkitForConditionalGeneration|AdaptkitProcessor", "workflow", text)
    text = re.split(r"(?<=[.:;?]) (?=Known|Model type|The only)|(?<=\.) (?=[A-CE-Z])", text)[0]
    return text if len(text) <= 160 else text[:159] + "…"


# -- the page ----------------------------------------------------------------------------------------------------------


def render() -> str:
    """The page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f"""# Stock methods

<!-- Measured with transformers {version()}. Made by `python -m tests.stock.matrix --write`; a test compares. -->

This page compares the calls that users of transformers make on models and processors: on a stock
`LlavaForConditionalGeneration` with its `LlavaProcessor`, and on the workflow that it was exported from. Each call was
run on both, with transformers
{version()}. “same” means the same result, value by value. “refused” is an error, with its message. “works” stands where
the stock call fails. Anything else is written out.

Two defaults differ: a workflow's processor returns tensors, and pads them on the left."""
    for index, group in enumerate(GROUPS):
        yield f"\n## {group.title}\n"
        if group.intro:
            yield f"{group.intro}\n"
        shown = (group.shown or group.call).replace("{}", "…")
        if shown != "…":
            yield f"`{shown}`\n"
        yield "| call | stock Llava | workflow |"
        yield "|---|---|---|"
        for row, (stock, ours) in measured(index).items():
            yield f"| `{_shown(row)}` | {stock} | {_escaped(ours)} |"


def _shown(row: str) -> str:
    return row.replace("|", "\\|")


def _escaped(text: str) -> str:
    for character in "\\|*_<[":
        text = text.replace(character, f"\\{character}")
    return text


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    print_or_write(render(), PAGE)
