"""The processor of a workflow: chat messages or text, and media, to a model's inputs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin

from adaptkit.chat.encoding import IGNORE_INDEX, EncodedConversation, encode_conversation, render, special_tokens_in
from adaptkit.chat.placeholders import Brackets, expand_placeholder
from adaptkit.chat.template import TurnEnd, check_template, end_of_turn, resolve_template, stop_settings
from adaptkit.chat.vocabulary import check_vocabulary
from adaptkit.errors import ArgumentError, DataError, ModelError, unknown_name
from adaptkit.files.generation_config import check_kinds
from adaptkit.files.hub import HUB_OPTIONS
from adaptkit.files.loading import load_stock, read_json, reading
from adaptkit.files.writing import staged_files, write_json
from adaptkit.interfaces import Message
from adaptkit.model.auto_options import AUTO_CLASS_OPTIONS
from adaptkit.model.card.recording import record_written
from adaptkit.model.checkpoint import load_config
from adaptkit.model.config import check_names
from adaptkit.model.messages import END, flatten, kind_of, normalised, open_ended, with_sources, with_stand_ins
from adaptkit.model.modality import WorkflowModality, read_modalities
from adaptkit.model.modality_inputs import ModalityInputs, modality_inputs
from adaptkit.model.overwriting import refuse_overwriting
from adaptkit.model.reference import origin_of, resolve_reference
from adaptkit.model.run_folders import locate, only_workflow
from adaptkit.model.saving import refuse_folder
from adaptkit.model.template_variables import names_variable, with_variables
from adaptkit.model.text_options import Row, TextOptions
from adaptkit.model.uploading import check_upload_options, upload

PROCESSOR_FILE = "processor_config.json"
STOCK_PLURALS = ("images", "videos", "audio")
"""Media keywords of transformers' processors, in the order in which it numbers them."""
TEMPLATE_KEYWORDS = (
    *("chat_template", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize"),
    *("return_dict", "return_assistant_tokens_mask", "processor_kwargs", "sanitize_control_tokens"),
)
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json")
TOKENIZER_OPTIONS = (
    *("use_fast", "padding_side", "truncation_side", "model_max_length"),
    *("pad_token", "bos_token", "eos_token", "unk_token", "add_bos_token", "add_eos_token"),
)
"""What a tokenizer may be loaded with that a processor honours."""


class MediaPadding:
    """What pipelines ask of a processor's `feature_extractor`: how they fill media of a batch, which they rarely do."""

    padding_value = 0.0

    @staticmethod
    def fetch_audio(source: Any, **_: Any) -> Any:
        """The source itself: the modality reads it."""
        return source

    @staticmethod
    def save_pretrained(save_directory: str | Path, **_: Any) -> None:
        """Write nothing: the processor is written whole."""


class AdaptkitProcessor(ProcessorMixin):  # type: ignore[misc]
    """Chat messages or text, and media, to a model's inputs.

    Args:
        tokenizer: The base's tokenizer, with a chat template.
        modalities: The workflow's kinds of input.
        chat_template: Template text to use instead of the tokenizer's.
        special_tokens_in_text: Whether the words of a special token in a message become that token. By default they are
            text: only the chat template writes special tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        modalities: Mapping[str, ModalityInputs] | None = None,
        chat_template: str | None = None,
        special_tokens_in_text: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.special_tokens_in_text = special_tokens_in_text
        self.modalities = dict(modalities or {})
        self.chat_template = chat_template or tokenizer.chat_template
        self.padding_side = "left"

    feature_extractor = MediaPadding()

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Parts that transformers saves by itself."""
        return ["tokenizer"]

    def __repr__(self) -> str:
        names = ", ".join(self.modalities) or "none"
        return f"{type(self).__name__}(tokenizer={type(self.tokenizer).__name__}, modalities: {names})"

    @property
    def placeholder_ids(self) -> dict[str, int]:
        """Placeholder id of each modality."""
        return {name: inputs.placeholder_id for name, inputs in self.modalities.items()}

    @cached_property
    def brackets(self) -> dict[str, Brackets]:
        """Token ids before and after each item of a modality."""

        def ids(text: str | None) -> list[int]:
            return [] if text is None else self.tokenizer(text, add_special_tokens=False)["input_ids"]

        return {name: (ids(inputs.start), ids(inputs.end)) for name, inputs in self.modalities.items()}

    @property
    def pad_token_id(self) -> int:
        """Id to pad with; any id serves, since padding is masked."""
        given = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token_id for token_id in given if token_id is not None))

    def stop_settings(self, generation_config: Any = None) -> dict[str, Any]:
        """What generation must stop at, as keywords of `generate`: the ends of a turn that the chat template writes.

        Args:
            generation_config: Of the model; the ends that it lists are kept.

        Returns:
            `eos_token_id`; and, where the tokenizer has no token for an end of turn, `stop_strings` and the `tokenizer`
            that `generate` needs to find them.
        """
        configured = getattr(generation_config, "eos_token_id", None)
        settings = stop_settings(self.tokenizer, self.chat_template, configured)
        return settings | ({"tokenizer": self.tokenizer} if "stop_strings" in settings else {})

    def decode_answers(self, new_ids: Any) -> list[str]:
        """Texts of generated answers: without special tokens, and without the text that ends a turn where one does."""
        return [self.cut_answer(self.decode(row, skip_special_tokens=True)) for row in new_ids]

    def cut_answer(self, text: str) -> str:
        """A generated text, up to where its turn ends."""
        end = end_of_turn(self.tokenizer, self.chat_template) if self.chat_template else TurnEnd()
        return end.cut(text)

    def special_tokens_in(self, messages: Sequence[Mapping[str, Any]]) -> list[str]:
        """Tokens that structure a conversation, and whose words stand in the text of messages."""
        return special_tokens_in(self.tokenizer, self._normalise(messages), self.placeholder_ids, self.chat_template)

    # -- messages ------------------------------------------------------------------------------------------------

    def encode(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False, num_positions: Any = None
    ) -> EncodedConversation:
        """Token ids, labels and media of one conversation.

        Args:
            messages: Turns; content is text or a list of parts, media as `{"type": modality, modality: source}`.
            add_generation_prompt: End with the header of an assistant turn.
            num_positions: Decoder positions of a medium, `(modality, source) -> int`; read from the medium itself
                where not given.
        """
        return encode_conversation(
            self.tokenizer,
            self._normalise(messages),
            placeholder_ids=self.placeholder_ids,
            num_positions=num_positions or (lambda name, source: self._measure(name, source)[0]),
            brackets=self.brackets,
            add_generation_prompt=add_generation_prompt,
            chat_template=self.chat_template,
            special_tokens_in_text=self.special_tokens_in_text,
        )

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, str]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        sanitize_control_tokens: bool | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render one conversation or several, and make a batch of them.

        Args:
            conversation: A list of messages, or a list of such lists. Media are parts such as
                `{"type": "image", "image": source}` (or `path`); a source is a path, bytes or an object in memory. A
                part without a source is fine for text; for ids its source comes with `processor_kwargs`.
            chat_template: Template text to use instead of the tokenizer's.
            tools: For templates that write them into the prompt.
            documents: The same.
            add_generation_prompt: End with the header of an assistant turn.
            continue_final_message: End within the last message, so that generation continues it.
            return_assistant_tokens_mask: Whether the batch marks what the assistant says, as `assistant_masks`.
            tokenize: Whether to return ids; else text with one tag per medium.
            return_dict: Whether to return everything the model takes; else only `input_ids`.
            sanitize_control_tokens: Whether special tokens in messages are text, if other than the processor has it.
            processor_kwargs: Keywords of a call of the processor: see `TextOptions`, and media by name or plural.
            kwargs: More of the same, and variables of the template, such as `enable_thinking`.

        Raises:
            DataError: A message or a medium is malformed or unreadable.
            ArgumentError: A keyword is unknown to the template and the processor, or cannot be honoured.
        """
        if continue_final_message and (add_generation_prompt or return_assistant_tokens_mask):
            other = "add_generation_prompt" if add_generation_prompt else "return_assistant_tokens_mask"
            raise ArgumentError(f"continue_final_message cannot be combined with {other}.")
        template = resolve_template(self.tokenizer, chat_template or self.chat_template)
        variables: dict[str, Any] = {n: v for n, v in (("tools", tools), ("documents", documents)) if v}
        known = {field.name for field in fields(TextOptions)}
        variables |= {n: v for n, v in kwargs.items() if n not in known and names_variable(template, n)}
        queues, others = self._queues({**kwargs, **(processor_kwargs or {})}, besides=variables)
        options = self._options(others, TEMPLATE_KEYWORDS, "The chat template uses no variable of that name.")
        as_tokens = self.special_tokens_in_text if sanitize_control_tokens is None else not sanitize_control_tokens
        rendering: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt, "chat_template": with_variables(template, variables)
        }  # fmt: skip
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        conversations = [self._normalise(one) for one in (conversation if batched else [conversation])]
        if continue_final_message:
            conversations = [open_ended(messages) for messages in conversations]
        if not tokenize:
            markers = {**self._tags(), END: END}
            texts = [render(self.tokenizer, with_stand_ins(m), markers=markers, **rendering) for m in conversations]
            texts = [text.partition(END)[0] for text in texts]
            return texts if batched else texts[0]
        num_given = {name: len(queue) for name, queue in queues.items()}
        conversations = [with_sources(messages, queues) for messages in conversations]
        self._refuse_surplus(queues, num_given, "conversation", "parts without a source")
        media: dict[str, list[Tensor]] = {}
        end_id = max(len(self.tokenizer), *self.placeholder_ids.values(), 0) + 1
        rows: list[Row] = []
        for messages in conversations:
            encoded = encode_conversation(
                self.tokenizer,
                messages,
                placeholder_ids={**self.placeholder_ids, **({END: end_id} if continue_final_message else {})},
                num_positions=lambda name, source: 1 if name == END else self._keep(media, name, source),
                brackets=self.brackets,
                special_tokens_in_text=as_tokens,
                **rendering,
            )
            row: Row = {"input_ids": encoded.input_ids[: [*encoded.input_ids, end_id].index(end_id)]}
            if return_assistant_tokens_mask:
                row["assistant_masks"] = [int(label != IGNORE_INDEX) for label in encoded.labels]
            rows.append(row)
        batch = self._batch(rows, media, options)
        return batch if return_dict else batch["input_ids"]

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Text that holds one tag per medium, and the media, to a batch.

        Args:
            images: Items of the modality whose plural this is, in reading order (nested lists are fine).
            text: One text or several; without any, the batch holds the media alone.
            videos: As `images`.
            audio: As `images`.
            kwargs: Items of other modalities, by name or plural; and options of the text: see `TextOptions`.

        Raises:
            DataError: Tags and media do not agree in number, or a medium is unreadable.
            ArgumentError: A keyword is unknown, or cannot be honoured.
        """
        queues, others = self._queues({"images": images, "videos": videos, "audio": audio, **kwargs})
        options = self._options(others)
        if text is None and not any(queues.values()):
            raise DataError("the processor needs text, or media; neither was given.")
        media: dict[str, list[Tensor]] = {}
        if text is None:
            for name, queue in queues.items():
                for source in queue:
                    self._keep(media, name, source)
            return BatchFeature(self._media_batches(media))
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(one, str) for one in texts):
            raise DataError(
                f"text is {kind_of(text)}, not text or a list of texts. Positional arguments are media, then text: "
                "better give both by name."
            )
        num_given = {name: len(queue) for name, queue in queues.items()}
        rows: list[Row] = [{"input_ids": self._encode_text(one, queues, media, options)} for one in texts]
        self._refuse_surplus(queues, num_given, "text", "tags")
        return self._batch(rows, media, options)

    def _options(self, given: Mapping[str, Any], others: Collection[str] = (), hint: str = "") -> TextOptions:
        media = [name for inputs in self.modalities.values() for name in (inputs.name, inputs.modality.plural)]
        return TextOptions.of(
            {"padding_side": self.padding_side, **given}, [*media, *others], hint, (*STOCK_PLURALS, *media)
        )

    def _refuse_surplus(
        self, queues: Mapping[str, Sequence[Any]], num_given: Mapping[str, int], what: str, places: str
    ) -> None:
        for name, queue in queues.items():
            if queue:
                tag = f"{self._tags()[name]} tag(s)" if places == "tags" else places
                used = num_given[name] - len(queue)
                raise DataError(f"{num_given[name]} {name} item(s) were given, but the {what} has {used} {tag}.")

    def _encode_text(
        self, text: str, queues: dict[str, list[Any]], collected: dict[str, list[Tensor]], options: TextOptions
    ) -> list[int]:
        brackets = self.brackets
        names = {tag: name for name in self.modalities for tag in self._markers(name)}
        pattern = "|".join(re.escape(tag) for tag in sorted(names, key=len, reverse=True))
        ids: list[int] = []
        for index, piece in enumerate(re.split(f"({pattern})", text) if pattern else [text]):
            if piece in names:
                name = names[piece]
                if not queues.get(name):
                    raise DataError(f"the text has more {piece} tags than {name} items were given.")
                count = self._keep(collected, name, queues[name].pop(0))
                ids += expand_placeholder(self.modalities[name].placeholder_id, count, brackets[name])
            elif piece or index == 0:
                starts = options.add_special_tokens and index == 0
                bos = self.tokenizer.bos_token
                starts = starts and not (bos and piece.startswith(bos))
                ids += self.tokenizer(piece, add_special_tokens=starts, verbose=options.verbose)["input_ids"]
        return ids

    def _queues(
        self, given: Mapping[str, Any], besides: Collection[str] = ()
    ) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Media by modality, and the keywords that are none of those in `besides`, nor media."""
        plurals = {inputs.modality.plural: name for name, inputs in self.modalities.items()}
        queues: dict[str, list[Any]] = {}
        others: dict[str, Any] = {}
        for key, value in given.items():
            name = plurals.get(key, key)
            if name in self.modalities:
                queues[name] = [] if value is None else flatten(value)
            elif key in STOCK_PLURALS:
                if value is not None:
                    raise ArgumentError(unknown_name("kind of media", key, [*plurals, *self.modalities]))
            elif key not in besides:
                others[key] = value
        return queues, others

    def _tags(self) -> dict[str, str]:
        return {name: self._markers(name)[0] for name in self.modalities}

    def _markers(self, name: str) -> list[str]:
        inputs = self.modalities[name]
        return [*([inputs.placeholder] if inputs.placeholder else []), inputs.modality.tag]

    def _measure(self, name: str, source: Any) -> tuple[int, Tensor]:
        inputs = self.modalities[name].load(source)
        return self.modalities[name].num_positions(inputs), inputs

    def _keep(self, media: dict[str, list[Tensor]], name: str, source: Any) -> int:
        count, inputs = self._measure(name, source)
        media.setdefault(name, []).append(inputs)
        return count

    def _normalise(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        return normalised(messages, self.modalities)

    # -- batches -------------------------------------------------------------------------------------------------

    def _batch(self, rows: list[Row], media: Mapping[str, list[Tensor]], options: TextOptions) -> BatchFeature:
        rows = options.truncate(rows, self.tokenizer, self.placeholder_ids)
        for row in rows:
            ids = row["input_ids"]
            if options.return_mm_token_type_ids:
                numbers = self._media_numbers()
                row["mm_token_type_ids"] = [numbers.get(token_id, 0) for token_id in ids]
            if options.return_token_type_ids:
                row["token_type_ids"] = [0] * len(ids)
            if options.return_special_tokens_mask:
                special = set(self.tokenizer.all_special_ids)
                row["special_tokens_mask"] = [int(token_id in special) for token_id in ids]
        return BatchFeature(options.pad(rows, self.tokenizer, self.pad_token_id) | self._media_batches(media))

    def _media_batches(self, media: Mapping[str, list[Tensor]]) -> dict[str, Any]:
        batches = {name: self.modalities[name].preprocessor.collate(items) for name, items in media.items()}
        names = [inputs.preprocessor.input_name for inputs in self.modalities.values()]
        if len(set(names)) == len(names):
            return {self.modalities[name].preprocessor.input_name: batch for name, batch in batches.items()}
        return {"features": batches} if batches else {}

    def _media_numbers(self) -> dict[int, int]:
        """Of each placeholder id, the number by which transformers tells its modality from text and others."""
        order = [*STOCK_PLURALS, *self.modalities]
        plurals = {inputs.modality.plural: inputs for inputs in self.modalities.values()}
        named = {inputs.name: inputs for inputs in self.modalities.values() if inputs.modality.plural not in order}
        found = plurals | named
        return {found[key].placeholder_id: 1 + number for number, key in enumerate(order) if key in found}

    @property
    def model_input_names(self) -> list[str]:
        """What a batch may hold."""
        return ["input_ids", "attention_mask", *[i.preprocessor.input_name for i in self.modalities.values()]]

    def __getattr__(self, name: str) -> Any:
        """Stock names of a modality's placeholder, such as `image_token` and `image_token_id`."""
        modalities = self.__dict__.get("modalities", {})
        for modality, inputs in modalities.items():
            if name == f"{modality}_token":
                return self._markers(modality)[0]
            if name == f"{modality}_token_id":
                return inputs.placeholder_id
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        """Text of several rows of ids; placeholders, which may lie outside the vocabulary, are skipped."""
        return [cast(str, self.decode(row, **kwargs)) for row in sequences]

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Text of one row of ids or several; placeholders, which may lie outside the vocabulary, are skipped."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [ids] if isinstance(ids, int) else list(ids)
        if ids and not isinstance(ids[0], int):
            return self.batch_decode(ids, **kwargs)
        placeholders = set(self.placeholder_ids.values())
        return self.tokenizer.decode([int(i) for i in ids if i not in placeholders], **kwargs)

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """As of stock processors: what pipelines make texts with."""
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)

    # -- disk ----------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write tokenizer, chat template and how to build the modalities' preprocessing.

        Args:
            save_directory: A folder, which must not hold a model that is not a workflow.
            push_to_hub: Whether to upload them as well, to `repo_id`, by default named like the folder.
            kwargs: `repo_id` and what `push_to_hub` takes.

        Raises:
            ArgumentError: An argument is unknown.
            ModelError: The folder holds such a model.
        """
        directory = Path(save_directory)
        check_upload_options(kwargs, "save_pretrained", ["push_to_hub"], push_to_hub=push_to_hub)
        repo_id = kwargs.pop("repo_id", directory.resolve().name)
        refuse_overwriting(directory)
        path = self._write(directory)
        if push_to_hub:
            self.push_to_hub(repo_id, **kwargs)
        return [str(path)]

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Upload what `save_pretrained` writes; arguments are those of transformers.

        Raises:
            ModelError: An encoder was loaded from a folder by name, which others do not have.
        """
        for name, inputs in self.modalities.items():
            if inputs.spec is not None:
                refuse_folder(name, inputs.spec)
        check_upload_options(kwargs, "push_to_hub")
        return upload(lambda folder, _: self._write(folder), repo_id, "Upload processor", **kwargs)

    def _write(self, directory: Path) -> Path:
        specs = {name: inputs.spec and inputs.spec.relative_to(directory) for name, inputs in self.modalities.items()}
        with staged_files(directory) as folder:
            self.tokenizer.save_pretrained(folder)
            write_json(folder / PROCESSOR_FILE, self._to_dict(specs))
            record_written(directory, folder)
        return directory / PROCESSOR_FILE

    def to_dict(self) -> dict[str, Any]:
        """What `save_pretrained` writes beside the tokenizer."""
        return self._to_dict({name: inputs.spec for name, inputs in self.modalities.items()})

    def _to_dict(self, specs: Mapping[str, WorkflowModality | None]) -> dict[str, Any]:
        return {
            "processor_class": type(self).__name__,
            "chat_template": self.chat_template if self.chat_template != self.tokenizer.chat_template else None,
            "special_tokens_in_text": self.special_tokens_in_text,
            "modalities": {name: {} if spec is None else spec.to_dict() for name, spec in specs.items()},
        }

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> AdaptkitProcessor:
        """Load a processor; see `adaptkit.load_processor`.

        Args:
            pretrained_model_name_or_path: A folder or hub id.
            kwargs: Where on the hub it is; `chat_template`, `padding_side`, and of the tokenizer `use_fast`,
                `truncation_side`, `model_max_length` and special tokens such as `pad_token`.

        Raises:
            ArgumentError: A keyword is unknown, or cannot be honoured.
        """
        hub_names = (*HUB_OPTIONS, "subfolder")
        hub = {name: kwargs[name] for name in hub_names if kwargs.get(name) is not None}
        given = {name: value for name, value in kwargs.items() if name not in (*hub_names, *AUTO_CLASS_OPTIONS)}
        known = ("chat_template", *TOKENIZER_OPTIONS)
        for name in list(given):
            if name not in known and "_from_pipeline" in kwargs:
                del given[name]  # pipelines hand over what is for the model
            elif name not in known:
                raise ArgumentError(unknown_name("keyword of a workflow's processor", name, known))
        chat_template, trusted = given.pop("chat_template", None), kwargs.get("trust_remote_code")
        processor = load_processor(
            pretrained_model_name_or_path, tokenizer_options=given, trust_remote_code=trusted, **hub
        )
        processor.chat_template = chat_template or processor.chat_template
        processor.padding_side = given.get("padding_side", processor.padding_side)
        return processor

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any = None, **options: Any) -> AdaptkitProcessor:
        """The processor of a workflow in memory, such as `adaptkit.adapt` returns.

        Args:
            model: The workflow; its encoders say how media are prepared.
            tokenizer: The base's; loaded from where the base was loaded if not given.
            options: Further arguments of `AdaptkitProcessor`.

        Raises:
            ModelError: The base came from no path or id, and no tokenizer is given.
            PluginError: No plugin reads a modality of this name: build `ModalityInputs` and give them to
                `AdaptkitProcessor` yourself.
        """
        source = getattr(model.base, "name_or_path", "")
        if tokenizer is None and not source:
            raise ModelError("the base was never loaded from a path or id, so its tokenizer is unknown: pass one.")
        modalities = {
            name: modality_inputs(name, entry, preprocessor=model.source_encoders[name].build_preprocessor())
            for name, entry in model.config.modalities.items()
        }
        if tokenizer is None:
            code = type(model.base).__module__.startswith("transformers_modules.")  # that its loader trusted
            commit = origin_of(model.base).revision
            tokenizer = load_stock(AutoTokenizer, source, trust_remote_code=code, revision=commit, padding_side="left")
        check_vocabulary(tokenizer, model.config.get_text_config(decoder=True).vocab_size)
        return cls(tokenizer, modalities, **options)


def load_processor(
    directory: str | Path,
    *,
    tokenizer_options: Mapping[str, Any] | None = None,
    trust_remote_code: bool | None = False,
    **hub_options: Any,
) -> AdaptkitProcessor:
    """Load the processor of a workflow.

    Args:
        directory: A folder that `adaptkit train`, or `save_pretrained` of a model or processor, wrote, the run
            directory of a single workflow, or the hub id of either: `OWNER/NAME` or `OWNER/NAME@REVISION`. Where no
            tokenizer was saved there, it is the base's.
        tokenizer_options: Further arguments of `AutoTokenizer.from_pretrained`.
        trust_remote_code: Whether code that comes with the tokenizer may be run.
        hub_options: For a hub id: `revision`, `cache_dir`, `token`, `local_files_only`, `force_download`,
            `subfolder`.

    Raises:
        ModelError: The folder holds no workflow, or several, or no tokenizer can be found.
        PluginError: A plugin that the workflow needs is not installed.
    """
    for name in hub_options:
        if name not in (*HUB_OPTIONS, "subfolder"):
            raise ModelError(f"load_processor: {unknown_name('argument', name, [*HUB_OPTIONS, 'subfolder'])}")
    folder, hub = locate(directory, hub_options)
    directory = only_workflow(folder, directory)
    path = directory / PROCESSOR_FILE
    config = load_config(directory) if not path.exists() or (directory / "config.json").exists() else None
    if path.exists():
        saved = check_kinds(_Saved, read_json(path), path)
        check_names(saved.modalities, path)
        specs = {name: spec.resolved(directory) for name, spec in read_modalities(saved.modalities, path).items()}
    else:
        saved = _Saved(modalities={} if config is None else config.modalities)
        specs = read_modalities(saved.modalities, path)
    source, options = str(directory), {"padding_side": "left", **(tokenizer_options or {})}
    if config is not None and not any((directory / name).is_file() for name in TOKENIZER_FILES):
        source = resolve_reference(config.base, directory)
        options |= {"revision": config.base.get("revision"), **hub}
    advice = "It should hold a tokenizer: save the processor beside the model (processor.save_pretrained)."
    tokenizer = load_stock(AutoTokenizer, source, advice=advice, trust_remote_code=trust_remote_code is True, **options)
    check_template(tokenizer, saved.chat_template, path if saved.chat_template else source)
    rows = None if config is None else getattr(config.get_text_config(decoder=True), "vocab_size", None)
    if rows is not None:
        check_vocabulary(tokenizer, rows, f"{directory}: ")
    with reading(path if path.exists() else directory / "config.json"):
        if config is not None and set(specs) != set(config.modalities):
            raise ModelError(
                f"{path}: modalities are {sorted(specs)}, but those of the model are {sorted(config.modalities)}. Save "
                "the processor again."
            )
        modalities = {name: modality_inputs(name, spec, directory) for name, spec in specs.items()}
        return AdaptkitProcessor(tokenizer, modalities, saved.chat_template, saved.special_tokens_in_text)


class _Saved(BaseModel):
    model_config = ConfigDict(strict=True)

    modalities: dict[str, Any]
    chat_template: str | None = None
    special_tokens_in_text: bool = False
