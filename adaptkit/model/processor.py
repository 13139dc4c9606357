"""The processor of a workflow: chat messages or text, and media, to a model's inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin

from adaptkit.chat import Brackets, EncodedConversation, encode_conversation, render, special_tokens_in
from adaptkit.chat_template import stop_settings
from adaptkit.errors import DataError, ModelError, PluginError, unknown_name
from adaptkit.interfaces import Message, Modality, Preprocessor
from adaptkit.model.checkpoint import HUB_OPTIONS, load_config, locate
from adaptkit.model.reference import encoder_relative_to_checkpoint, resolve_encoder, resolve_reference
from adaptkit.model.saving import ENCODERS_FOLDER, refuse_folder, refuse_overwriting
from adaptkit.model.uploading import upload
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.vocabulary import check_vocabulary

PROCESSOR_FILE = "processor_config.json"
SOURCE_KEYS = ("path", "url", "base64", "data")


@dataclass
class ModalityInputs:
    """All that turns raw input of one modality into placeholders and encoder inputs.

    Attributes:
        name: The modality's key in the workflow.
        modality: Reads raw input.
        preprocessor: Prepares it for the encoder.
        placeholder_id: Token id that stands at each of its positions.
        placeholder: The id's text where the tokenizer has one.
        start: Text that stands before each item's placeholders, such as a special token of the tokenizer.
        end: Text that stands after them.
        projector: `{"name": ..., "options": ...}`, which may change the number of positions.
        spec: How to build this again.
    """

    name: str
    modality: Modality
    preprocessor: Preprocessor
    placeholder_id: int
    placeholder: str | None = None
    start: str | None = None
    end: str | None = None
    projector: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    def load(self, source: Any) -> Tensor:
        """Encoder inputs of one item, without a batch dimension."""
        return self.preprocessor(self.modality.load(source))

    def num_positions(self, inputs: Tensor) -> int:
        """Decoder positions that one item takes."""
        return self._projected(self.preprocessor.num_positions(inputs))

    @property
    def fixed_positions(self) -> int | None:
        """Decoder positions of every item, where that does not depend on the item."""
        if self._in_context:
            return 1
        fixed = self.preprocessor.fixed_positions
        return None if fixed is None else self._projected(fixed)

    @property
    def _in_context(self) -> bool:
        """Whether features stay out of the sequence, so that one placeholder stands for each item."""
        return self.spec.get("feature_mode") == "context"

    def _projected(self, positions: int) -> int:
        if self._in_context:
            return 1
        if "name" not in self.projector:
            return positions
        manager = get_plugin_manager()
        component = manager.get("projector", self.projector["name"])
        if "num_positions" not in component.extra:
            return positions
        options = manager.options("projector", self.projector["name"], self.projector["options"])
        return int(component.extra["num_positions"](options, positions))


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
        return {name: self._brackets_of(inputs) for name, inputs in self.modalities.items()}

    def _brackets_of(self, inputs: ModalityInputs) -> Brackets:
        texts = (inputs.start, inputs.end)
        before, after = ([] if t is None else self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts)
        return before, after

    @property
    def pad_token_id(self) -> int:
        """Id to pad with; any id serves, since padding is masked."""
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        return 0

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
        texts = [self.decode(row, skip_special_tokens=True) for row in new_ids]
        for end in self.stop_settings().get("stop_strings", ()):
            texts = [text.partition(end)[0] for text in texts]
        return [text.strip() for text in texts]

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
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        padding: bool | str = True,
        padding_side: str = "left",
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render one conversation or several, and make a batch of them.

        Args:
            conversation: A list of messages, or a list of such lists. Media are parts such as
                `{"type": "image", "image": source}` (or `path`); a source is a path, bytes or an object in memory.
            chat_template: Template text to use instead of the tokenizer's.
            add_generation_prompt: End with the header of an assistant turn.
            tokenize: Whether to return ids; else text with one tag per medium.
            return_dict: Whether to return everything the model takes; else only `input_ids`.
            return_tensors: `"pt"`; a batch always holds tensors.
            padding: Ignored unless False with rows of different lengths, which is an error.
            padding_side: `"left"` for generation.
            processor_kwargs: More of the same, as transformers passes it.

        Raises:
            DataError: A message or a medium is malformed or unreadable.
        """
        options = {**kwargs, **(processor_kwargs or {})}
        padding_side = options.pop("padding_side", padding_side)
        _refuse_tensors(options.pop("return_tensors", return_tensors))
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        conversations = list(conversation) if batched else [conversation]
        if not tokenize:
            texts = [
                render(
                    self.tokenizer, self._normalise(messages), add_generation_prompt=add_generation_prompt,
                    chat_template=chat_template or self.chat_template, markers=self._tags(),
                )
                for messages in conversations
            ]  # fmt: skip
            return texts if batched else texts[0]
        rows: list[list[int]] = []
        media: dict[str, list[Tensor]] = {}
        for messages in conversations:
            encoded = encode_conversation(
                self.tokenizer,
                self._normalise(messages),
                placeholder_ids=self.placeholder_ids,
                num_positions=lambda name, source: self._keep(media, name, source),
                brackets=self.brackets,
                add_generation_prompt=add_generation_prompt,
                chat_template=chat_template or self.chat_template,
                special_tokens_in_text=self.special_tokens_in_text,
            )
            rows.append(encoded.input_ids)
        batch = self._batch(rows, media, padding_side)
        return batch if return_dict else batch["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        *,
        padding_side: str = "left",
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        **media: Any,
    ) -> BatchFeature:
        """Text that holds one tag per medium, and the media, to a batch.

        Args:
            images: Items of the modality whose plural this is, in reading order (nested lists are fine).
            text: One text or several.
            videos: As `images`.
            audio: As `images`.
            padding_side: `"left"` for generation.
            return_tensors: `"pt"`; a batch always holds tensors.
            add_special_tokens: Whether to begin with the tokenizer's own special tokens where the text does not.
            media: Items of other modalities, by name or plural.

        Raises:
            DataError: Tags and media do not agree in number, or a medium is unreadable.
        """
        _refuse_tensors(return_tensors)
        if text is None:
            raise DataError("the processor needs text; media alone make no prompt.")
        queues = self._queues({"images": images, "videos": videos, "audio": audio, **media})
        texts = [text] if isinstance(text, str) else list(text)
        given = {name: len(queue) for name, queue in queues.items()}
        collected: dict[str, list[Tensor]] = {}
        rows = [self._encode_text(one, queues, collected, add_special_tokens) for one in texts]
        for name, queue in queues.items():
            if queue:
                tag = self._tags()[name]
                raise DataError(
                    f"{given[name]} {name} item(s) were given, but the text has {given[name] - len(queue)} {tag} "
                    "tag(s)."
                )
        return self._batch(rows, collected, padding_side)

    def _encode_text(
        self, text: str, queues: dict[str, list[Any]], collected: dict[str, list[Tensor]], add_special_tokens: bool
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
                before, after = brackets[name]
                ids += [*before, *[self.modalities[name].placeholder_id] * count, *after]
            elif piece or index == 0:
                starts = add_special_tokens and index == 0
                bos = self.tokenizer.bos_token
                starts = starts and not (bos and piece.startswith(bos))
                ids += self.tokenizer(piece, add_special_tokens=starts)["input_ids"]
        return ids

    def _queues(self, given: Mapping[str, Any]) -> dict[str, list[Any]]:
        plurals = {inputs.modality.plural: name for name, inputs in self.modalities.items()}
        queues: dict[str, list[Any]] = {}
        for key, value in given.items():
            name = plurals.get(key, key)
            if value is None:
                continue
            if name not in self.modalities:
                raise DataError(unknown_name("kind of media", key, [*plurals, *self.modalities]))
            queues[name] = _flatten(value)
        return queues

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
        """Accept transformers' ways of writing a part: `{"type": "image", "path": source}` and its kin."""
        normalised: list[Message] = []
        for message in messages:
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])
            for index, part in enumerate(parts):
                kind = part.get("type") if isinstance(part, Mapping) else None
                if kind in self.modalities and kind not in part:
                    sources = [part[key] for key in SOURCE_KEYS if part.get(key) is not None]
                    if len(sources) == 1:
                        parts[index] = {"type": kind, kind: sources[0]}
            normalised.append(cast(Message, {**message, "role": message.get("role", ""), "content": parts}))
        return normalised

    # -- batches -------------------------------------------------------------------------------------------------

    def _batch(self, rows: list[list[int]], media: Mapping[str, list[Tensor]], padding_side: str) -> BatchFeature:
        width = max(len(row) for row in rows)
        input_ids = torch.full((len(rows), width), self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(rows):
            columns = slice(width - len(ids), width) if padding_side == "left" else slice(0, len(ids))
            input_ids[row, columns] = torch.tensor(ids, dtype=torch.long)
            attention_mask[row, columns] = 1
        data: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        batches = {name: self.modalities[name].preprocessor.collate(items) for name, items in media.items()}
        names = [self.modalities[name].preprocessor.input_name for name in self.modalities]
        if len(set(names)) == len(names):
            data |= {self.modalities[name].preprocessor.input_name: batch for name, batch in batches.items()}
        elif batches:
            data["features"] = batches
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        """What a batch may hold."""
        return ["input_ids", "attention_mask", *[i.preprocessor.input_name for i in self.modalities.values()]]

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        """Text of several rows of ids; placeholders, which may lie outside the vocabulary, are left out."""
        return [self.decode(row, **kwargs) for row in sequences]

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Text of one row of ids; placeholders, which may lie outside the vocabulary, are left out."""
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        placeholders = set(self.placeholder_ids.values())
        return cast(str, self.tokenizer.decode([i for i in ids if i not in placeholders], **kwargs))

    # -- disk ----------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write tokenizer, chat template and how to build the modalities' preprocessing.

        Args:
            save_directory: A folder, which must not hold a model that is no workflow.
            push_to_hub: Whether to upload them as well, to `repo_id`, by default named like the folder.
            kwargs: `repo_id` and what `push_to_hub` takes.

        Raises:
            ModelError: The folder holds such a model, or an argument is unknown.
        """
        directory = Path(save_directory)
        repo_id = kwargs.pop("repo_id", directory.resolve().name)
        if kwargs and not push_to_hub:
            raise ModelError(f"save_pretrained: {', '.join(kwargs)} is for push_to_hub=True, or unknown. Leave it out.")
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
            refuse_folder(name, inputs.spec.get("encoder") or {})
        return upload(self._write, repo_id, "Upload processor", **kwargs)

    def _write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(directory)
        values = {
            "processor_class": type(self).__name__,
            "chat_template": self.chat_template if self.chat_template != self.tokenizer.chat_template else None,
            "special_tokens_in_text": self.special_tokens_in_text,
            "modalities": {name: _written_beside(inputs.spec, directory) for name, inputs in self.modalities.items()},
        }
        path = directory / PROCESSOR_FILE
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> AdaptkitProcessor:
        """Load a processor; see `adaptkit.load_processor`."""
        hub = {name: kwargs[name] for name in (*HUB_OPTIONS, "subfolder") if kwargs.get(name) is not None}
        return load_processor(pretrained_model_name_or_path, **hub)


def load_processor(directory: str | Path, **hub_options: Any) -> AdaptkitProcessor:
    """Load the processor of a workflow.

    Args:
        directory: A folder that `adaptkit train`, or `save_pretrained` of a model or processor, wrote, or the hub id
            of one. Where only the model was saved there, the tokenizer is the base's.
        hub_options: For a hub id: `revision`, `cache_dir`, `token`, `local_files_only`, `force_download`,
            `subfolder`.

    Raises:
        ModelError: The folder holds no workflow, or no tokenizer can be found.
        PluginError: A plugin that the workflow needs is not installed.
    """
    for name in hub_options:
        if name not in (*HUB_OPTIONS, "subfolder"):
            raise ModelError(f"load_processor: {unknown_name('argument', name, [*HUB_OPTIONS, 'subfolder'])}")
    directory, _ = locate(directory, hub_options)
    path = directory / PROCESSOR_FILE
    chat_template, special_tokens_in_text = None, False
    config = load_config(directory) if (directory / "config.json").is_file() else None
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        specs, chat_template, source = values["modalities"], values["chat_template"], str(directory)
        special_tokens_in_text = values.get("special_tokens_in_text", False)
        specs = {name: {**spec, "encoder": resolve_encoder(spec["encoder"], directory)} for name, spec in specs.items()}
    else:
        config = config or load_config(directory)
        specs = config.modalities
        source = resolve_reference(config.base, directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{directory}: no tokenizer there nor at its base {source!r}. Save the processor beside the model "
            "(processor.save_pretrained), or build one from a tokenizer."
        ) from error
    rows = None if config is None else getattr(config.get_text_config(decoder=True), "vocab_size", None)
    if rows is not None:
        check_vocabulary(tokenizer, rows, f"{directory}: ")
    modalities = {name: modality_inputs(name, spec, directory) for name, spec in specs.items()}
    return AdaptkitProcessor(tokenizer, modalities, chat_template, special_tokens_in_text)


def modality_inputs(name: str, spec: Mapping[str, Any], directory: Path | None = None) -> ModalityInputs:
    """Build a modality's reading and preprocessing from what a checkpoint or a recipe says of it.

    Args:
        name: Its key in the workflow.
        spec: `encoder` (a reference), `projector`, `placeholder_id`; optionally `placeholder`, `start`, `end`, `type`
            (the registered modality, by default `name`) and `options` of it.
        directory: The checkpoint's folder, where encoders given as objects are kept.
    """
    manager = get_plugin_manager()
    modality = manager.build("modality", spec.get("type") or name, spec.get("options") or {})
    encoder = spec["encoder"]
    encoder_name = encoder.get("name") or encoder.get("adopted_by")
    if encoder_name is None:
        raise PluginError(
            f"modality {name!r}: its encoder was an object ({encoder.get('object')}) that no plugin knows, so its "
            "preprocessing cannot be told. Build AdaptkitProcessor with a preprocessor of your own."
        )
    options = dict(encoder.get("options") or {})
    if "adopted_by" in encoder and directory is not None:
        options["path"] = str(directory / ENCODERS_FOLDER / name)
    component = manager.get("encoder", encoder_name)
    preprocessor = component.extra["build_preprocessor"](manager.options("encoder", encoder_name, options))
    texts = {key: spec.get(key) for key in ("placeholder", "start", "end")}
    return ModalityInputs(
        name, modality, preprocessor, int(spec["placeholder_id"]), projector=spec["projector"], spec=spec, **texts
    )


def _written_beside(spec: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    return {**spec, "encoder": encoder_relative_to_checkpoint(spec["encoder"], directory)} if "encoder" in spec else {}


def _flatten(value: Any) -> list[Any]:
    """Items of nested lists; a list that holds a number is an item itself, such as samples with their rate."""
    if isinstance(value, (list, tuple)) and not any(isinstance(one, (int, float)) for one in value):
        return [item for one in value for item in _flatten(one)]
    return [value]


def _refuse_tensors(return_tensors: str | None) -> None:
    if return_tensors not in (None, "pt", "auto"):
        raise DataError(f"return_tensors={return_tensors!r}: a batch holds PyTorch tensors ('pt').")
