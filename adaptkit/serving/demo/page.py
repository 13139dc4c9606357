"""The page, and the server of the page."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adaptkit.errors import AdaptkitError, DataError, inert_text, install_command
from adaptkit.serving.backends import MAX_FILE_BYTES, Backend, Reply
from adaptkit.serving.demo.drawing import draw_boxes
from adaptkit.serving.demo.history import BY_SUFFIX, Part, messages_of, part_of_file, to_markdown, turns_of

_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""What the browser may load and ask: this server and nothing else, whatever an answer or a picture holds."""

_CONCURRENCY = 16
_KEPT_S = (3_600, 86_400)
"""How often files are looked through, and how long one is kept."""

_STYLE = """
.title, .title * { padding: 0 !important; }
.by { font-size: var(--text-sm); color: var(--body-text-color-subdued); }
.failed { color: var(--error-text-color); background: var(--error-background-fill); padding: var(--spacing-lg);
  border: 1px solid var(--error-border-color); border-radius: var(--radius-md); overflow-wrap: anywhere; }
footer > .divider, [aria-label="Share"] { display: none; }  /* sharing would send the picture elsewhere */
@media (max-width: 640px) {
  .gradio-container > main { padding: var(--spacing-lg) !important; }
  .past { order: 2; }
}
"""

Contents = list[Any]
"""What one message of the page shows: texts, and components of gradio."""


class Page:
    """A chat on a page.

    Args:
        backend: Who answers.
        workflow: Which of its choices is asked at first.
        options: Of generation.
        title: Above the chat.

    Raises:
        DataError: gradio is not installed.
    """

    def __init__(self, backend: Backend, workflow: str, options: Mapping[str, Any], title: str = "adaptkit") -> None:
        self._gradio = import_gradio()
        self._backend = backend
        self._options = options
        self._title = title
        self.blocks = self._build(workflow)

    def _build(self, workflow: str) -> Any:
        gr, backend = self._gradio, self._backend
        with gr.Blocks(title=self._title, fill_height=True, analytics_enabled=False, delete_cache=_KEPT_S) as page:
            with gr.Row(equal_height=True):
                gr.HTML(f"<h2>{html.escape(inert_text(self._title))}</h2>", elem_classes="title")
                choice = gr.Dropdown(list(backend.choices), value=workflow, label="Workflow", scale=0, min_width=180)
            chat = gr.ChatInterface(
                self.answer,
                multimodal=True,
                chatbot=self._chatbot(),
                textbox=self._textbox(),
                additional_inputs=[choice, *self._settings()],
                additional_inputs_accordion=gr.Accordion("Options", open=False, render=False),
                concurrency_limit=_CONCURRENCY,
                save_history=True,
                api_visibility="private",
                analytics_enabled=False,
            )
            chat.new_chat_button.parent.elem_classes = ["past"]
        return page

    def _chatbot(self) -> Any:
        return self._gradio.Chatbot(
            show_label=False,
            scale=1,
            min_height=240,
            allow_tags=False,
            placeholder="Ask in words, or about a file.",
            feedback_options=None,
            buttons=[],
            render=False,
        )

    def _textbox(self) -> Any:
        modalities = self._backend.modalities
        may_speak = modalities is None or "audio" in modalities
        are_known = modalities is not None and set(modalities) <= set(BY_SUFFIX)
        return self._gradio.MultimodalTextbox(
            file_count="multiple",
            file_types=list(modalities or ()) if are_known else None,
            sources=["upload", "microphone"] if may_speak else ["upload"],
            placeholder="Message",
            show_label=False,
            stop_btn=True,
            autofocus=True,
            render=False,
        )

    def _settings(self) -> list[Any]:
        gr, options = self._gradio, self._options
        most, temperature = options["max_new_tokens"], options["temperature"]
        return [
            gr.Textbox(label="System message", lines=2, render=False),
            gr.Number(most, label="Most tokens of an answer", precision=0, minimum=1, render=False),
            gr.Slider(0, 2, temperature, step=0.05, label="Temperature (0 decodes greedily)", render=False),
        ]

    def answer(
        self,
        message: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
        workflow: str,
        system: str,
        max_new_tokens: int,
        temperature: float,
    ) -> Iterator[Mapping[str, Any]]:
        """Answer one message of the page: a text that grows, then who gave it, and a picture where it has boxes."""
        options = {**self._options, "temperature": temperature} | (
            {"max_new_tokens": max_new_tokens} if max_new_tokens else {}
        )
        text = ""
        try:
            turns, question = self._asked(message, history)
            reply = self._backend.ask(messages_of([*turns, ("user", question)], system), workflow, options)
            try:
                for piece in reply:
                    text += piece
                    yield _shown([_readable(text)])
            finally:
                reply.cancel()
            yield _shown([_readable(text), self._signature(reply, text), *self._drawing(text, turns, question)])
        except AdaptkitError as error:
            yield _shown([*([_readable(text)] if text else []), self._failure(str(error))])

    def _asked(
        self, message: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
    ) -> tuple[list[tuple[str, list[Part]]], list[Part]]:
        modalities = self._backend.modalities
        question = [part_of_file(path, modalities) for path in message["files"]]
        question += [("text", message["text"])] if message["text"].strip() else []
        if not question:
            raise DataError("There is nothing to answer: write something, or add a file.")
        for kind, path in question:
            if kind != "text":
                self._backend.read(kind, path)
        return turns_of(history, modalities), question

    def _signature(self, reply: Reply, text: str) -> Any:
        remark = " · cut off at the most tokens" if reply.finish_reason == "length" else ""
        remark = remark or ("" if text else " · an empty answer")
        return self._gradio.HTML(f'<span class="by">{html.escape(inert_text(reply.workflow))}{remark}</span>')

    def _drawing(self, text: str, turns: Sequence[tuple[str, list[Part]]], question: list[Part]) -> Contents:
        pictures = [path for _, parts in [*turns, ("user", question)] for kind, path in parts if kind == "image"]
        drawn = draw_boxes(self._backend.read("image", pictures[-1]), text) if pictures else None
        return [] if drawn is None else [self._gradio.Image(drawn, show_label=False, buttons=["fullscreen"])]

    def _failure(self, message: str) -> Any:
        return self._gradio.HTML(f'<div class="failed" role="alert">{html.escape(inert_text(message))}</div>')

    def start(self, host: str, port: int) -> str:
        """Serve the page from other threads; gives its address.

        Raises:
            DataError: The port is taken, or the host is not an address of this machine.
        """
        from starlette.middleware import Middleware

        try:
            _, url, _ = self.blocks.launch(
                server_name=host,
                server_port=port,
                app_kwargs={"middleware": [Middleware(_Headers)]},
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                run_history=False,
                max_file_size=MAX_FILE_BYTES,
                footer_links=["settings"],
                theme=_theme(self._gradio),
                css=_STYLE,
            )
        except OSError as error:
            reason = "the port is taken, or this is not an address of this machine"
            raise DataError(f"cannot serve on {host}, port {port}: {reason}. Change --port or --host.") from error
        return str(url)

    def close(self) -> None:
        """Stop serving."""
        self.blocks.close(verbose=False)


def _readable(text: str) -> str:
    return to_markdown(inert_text(text))


def _shown(contents: Contents) -> Mapping[str, Any]:
    return {"role": "assistant", "content": contents}


class _Headers:
    """Adds the policy to every answer of the server.

    Args:
        app: What answers.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _theme(gradio: Any) -> Any:
    return gradio.themes.Default(
        primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def import_gradio() -> Any:
    """The library, which asks other hosts for nothing: neither counts, nor newer versions, nor files that a page names.

    Raises:
        DataError: It is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise DataError(f"the page needs gradio: {install_command('demo')}") from error
    gradio.processing_utils.async_ssrf_protected_get = _refuse_address
    return gradio


async def _refuse_address(url: str) -> Any:
    raise DataError(f"{url}: files are not fetched from other hosts. Send its content.")
