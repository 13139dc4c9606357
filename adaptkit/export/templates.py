"""Chat templates for stock processors, which put media into text by their token."""

from __future__ import annotations

from adaptkit.export.vocabulary import Placeholder
from adaptkit.model.processor import AdaptkitProcessor

_FLATTEN = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set turn = namespace(text='') -%}
{%- if message['content'] is string -%}
{%- set turn.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- set turn.text = turn.text + (part['text'] if part['type'] == 'text' else MEDIUM) -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=turn.text)] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""


def flat_template(processor: AdaptkitProcessor, modality: str, placeholder: Placeholder) -> str | None:
    """The workflow's template, which expects plain text, behind lines that turn parts into text.

    What the workflow writes around a medium is written around the stock model's token.
    """
    if processor.chat_template is None:
        return None
    inputs = processor.modalities[modality]
    text = f"{inputs.start or ''}{placeholder.token}{inputs.end or ''}"
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return _FLATTEN.replace("MEDIUM", f"'{quoted}'") + processor.chat_template
