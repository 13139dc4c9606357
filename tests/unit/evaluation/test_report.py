"""The report: well-formed, self-contained, and safe to open whatever a model wrote."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from adaptkit.cli.results_tables import identity_line, render_results_table
from adaptkit.evaluation.boxes import score_boxes
from adaptkit.evaluation.curves import stage_curves
from adaptkit.evaluation.plots import line_plot, smoothed
from adaptkit.evaluation.questions import Question
from adaptkit.evaluation.report import ReportData, gallery_items, render_report, wilson_interval, write_report
from adaptkit.evaluation.scores import Answer
from adaptkit.plugin_manager import get_plugin_manager

NASTY = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}
RESULTS: dict[str, Any] = {
    "text": {
        "base_accuracy": 0.97,
        "workflow_accuracy": 0.97,
        "logits_identical": True,
        "by_type": {"fact": 0.97},
        "base_by_type": {"fact": 0.97},
        "n": 100,
        "num_prompts": 80,
        "num_prompts_differing": 0,
        "num_positions": 988,
        "max_logit_difference": 0.0,
    },
    "image_questions": {
        "accuracy": 0.842,
        "blind": 0.31,
        "majority": 0.28,
        "by_type": {"color": 0.9, NASTY: 0.1},
        "blind_by_type": {"color": 0.2, NASTY: 0.1},
        "majority_by_type": {"color": 0.2, NASTY: 0.1},
        "n": 700,
        "n_by_type": {"color": 350, NASTY: 350},
    },
    "grounding": {"acc@0.5": 0.62, "blind": 0.04, "n": 100},
    "seconds": 23.4,
    "harness": {"seed": 0, "prompts": {"text": NASTY}, "versions": {"torch": "2"}},
}


class Outline(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    assert parser.stack == []
    return parser


@pytest.fixture
def data() -> ReportData:
    modality = get_plugin_manager().build("modality", "image", {})
    processor = SimpleNamespace(modalities={"image": SimpleNamespace(modality=modality)})
    picture = Image.new("RGB", (8, 8), "red")
    asked = Question("color", NASTY, "red", media=(("image", picture),))
    grounded = Question("box", "where ?", "[0,0,1,1]", media=(("image", picture),), box=(0, 0, 4, 8), size=(8, 8))
    answers = [Answer(asked, "red", True, blind="blue")] + [Answer(asked, NASTY, False, blind=NASTY)] * 3
    for text in ("[0,0,0.5,1]", NASTY, "[5,5,-5,-5]"):
        verdict = score_boxes(text, (0, 0, 4, 8), 8, 8)
        answers.append(Answer(grounded, text, verdict.hit, verdict, ""))
    return ReportData(
        title=NASTY,
        results=RESULTS,
        description="a run",
        metrics=[{"stage": s, "step": i, "loss": 3 / i} for s in ("align", NASTY) for i in range(1, 30)]
        + [{"stage": "align", "step": 30, "loss": None}],
        layers=[
            {"index": None, "kind": "replaced", "name": "embedding", "source": None},
            {"index": 0, "kind": "frozen", "name": "layer 0", "source": 0},
            {"index": 1, "kind": "inserted", "name": "layer 1", "source": 0},
        ],
        components=[{"name": "base", "state": "frozen", "num_parameters": 1_640_000, "num_bytes": 6_560_000}],
        gallery=gallery_items(answers, processor),
        command="adaptkit train recipe.yaml",
        recipe=f"name: {NASTY}\n",
    )


def test_the_page_is_well_formed_and_complete(data: ReportData, tmp_path: Path) -> None:
    page = outline(write_report(tmp_path / "report.html", data).read_text(encoding="utf-8"))
    for expected in (
        "84.2%",
        "62.0%",
        "identical",
        "every bit agrees",
        "blind\N{NO-BREAK SPACE}31.0%",
        "95% interval 81.3–86.7%",
        "align",
        "1.64M",
        "IoU",
    ):
        assert expected in page.text
    names = [tag for tag, _ in page.tags]
    curves = [a for tag, a in page.tags if tag == "path" and "stroke: var(--accent" in (a.get("style") or "")]
    assert len(curves) == 2 * 2, "a raw and a smooth curve for each stage"
    classes = [attributes.get("class") or "" for _, attributes in page.tags]
    assert sum(c.startswith("block") for c in classes) == 3
    assert names.count("article") == 2 + 3, "two of a kind, and every grounded one"
    assert classes.count("gold") == 3
    assert classes.count("predicted") == 2


def test_what_a_model_wrote_is_text(data: ReportData) -> None:
    page = outline(render_report(data))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert NASTY in page.text


def test_the_page_needs_nothing_from_elsewhere(data: ReportData) -> None:
    html = render_report(data)
    assert not re.search(r"(?:https?:)?//[a-z]", html.replace(NASTY, ""), re.IGNORECASE)
    assert "@import" not in html
    for _, attributes in outline(html).tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_drawings_stay_inside_the_medium(data: ReportData) -> None:
    for item in data.gallery:
        for box in (*item.gold_boxes, *item.predicted_boxes):
            assert all(0 <= value <= 1 for value in box)
    assert next(item for item in data.gallery if item.gold_boxes).gold_boxes == ((0.0, 0.0, 0.5, 1.0),)


def test_a_run_with_little_to_show_still_has_a_page() -> None:
    page = outline(render_report(ReportData("empty", {})))
    assert "empty" in page.text
    text = {"base_accuracy": None, "workflow_accuracy": 0.5, "logits_identical": None, "note": "no path", "n": 2}
    assert "not compared" in outline(render_report(ReportData("t", {"text": text}))).text


def test_a_difference_is_shown_as_one() -> None:
    text = {**RESULTS["text"], "logits_identical": False, "num_prompts_differing": 3, "max_logit_difference": 0.5}
    page = outline(render_report(ReportData("t", {"text": text})))
    assert "3 prompts differ, by up to 0.5" in page.text
    assert "DIFFER" in identity_line(text)
    assert "3 of 80 prompts" in identity_line(text)


@pytest.mark.parametrize("points", [[(1, 2.0)], [(1, 1.0), (2, 1.0)], [(0, 0.0)], [(1, 1e-9), (20_000, 1e6)]])
def test_charts_of_any_values(points: list[tuple[float, float]]) -> None:
    svg = str(line_plot(points, label=NASTY))
    outline(svg)
    assert "nan" not in svg


def test_validation_is_drawn_beside_training_with_its_best_step() -> None:
    lines: list[dict[str, Any]] = []
    for step in range(0, 30, 10):
        lines += [{"stage": "s", "step": step + 1, "loss": 1.0, "learning_rates": {"projector": 1e-3, "ends": 1e-4}}]
        parts = {f"validation/{place}/loss": 2.0 for place in ("data/a", "data/b", "data/a/image", "modality/image")}
        best = {"validation/best_step": 10} if step else {}
        lines += [
            {"stage": "s", "step": step, "validation/loss": 1.5, "validation/token_accuracy": 0.5, **parts, **best}
        ]
    lines += [{"stage": "s", "step": 40, "validation/loss": None, "validation/token_accuracy": 0.5}]
    stage = stage_curves(lines)[0]
    assert "1.500 at step 10" in stage.validated
    assert all(word in str(stage.loss) for word in ("training", "validation", "best"))
    assert stage.parts is not None
    assert re.findall(r">(a|b|image)<", str(stage.parts)) == ["a", "b"]  # the only modality has the overall curve
    assert stage.rate is not None
    assert "projector" in str(stage.rate)
    outline(render_report(ReportData("t", {}, metrics=lines)))
    assert stage_curves([{"stage": "s", "step": 1, "loss": 1.0}])[0].validated == ""


def test_wrong_answers_come_first(data: ReportData) -> None:
    rights = [item.right for item in data.gallery]
    assert rights == sorted(rights)
    assert {item.kind for item in data.gallery} == {"color", "box"}


def test_charts_leave_out_what_is_no_number() -> None:
    assert "No values" in line_plot([(1, float("nan"))], label="loss")


def test_smoothing_starts_at_the_curve_and_keeps_constants() -> None:
    assert [y for _, y in smoothed([(i, 2.0) for i in range(100)])] == pytest.approx([2.0] * 100)
    assert smoothed([(0, 5.0), (1, 1.0)])[0] == (0, 5.0)


def test_intervals_are_right_at_the_ends() -> None:
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.161), abs=1e-3)  # by the published formula
    assert wilson_interval(1.0, 20) == pytest.approx((0.839, 1.0), abs=1e-3)


def test_scores_of_what_was_trained_on_are_not_called_held_out(data: ReportData) -> None:
    from rich.console import Console

    results = {**RESULTS, "grounding": {**RESULTS["grounding"], "trained_on": True}}
    page = render_report(replace(data, results=results))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_results_table(results))
    table = console.export_text()
    assert "Grounding (trained on), Acc@0.5" in page
    assert "grounding (trained on), acc@0.5" in table
    for text in (page, table):
        assert "held-out" not in text.lower()
        assert text.count("trained on") == 1
    assert "held-out" in render_report(data).lower()


def test_a_section_without_kinds_has_no_bars(data: ReportData) -> None:
    scores = {"accuracy": 0.5, "blind": 0.4, "majority": 0.1, "n": 50}
    page = render_report(replace(data, results={**RESULTS, "mine": scores}))
    assert "<caption>Image questions" in page
    assert "<caption>Mine" not in page


def test_the_table_names_every_score() -> None:
    from adaptkit.cli.terminal import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_results_table(RESULTS))
    text = console.export_text()
    for expected in (
        "image questions",
        "84.2%",
        "31.0%",
        "color",
        "grounding, acc@0.5",
        "62.0%",
        "97.0%",
        "bit-identical",
    ):
        assert expected in text
    assert "[bold]" not in text


def test_every_report_and_table_says_what_was_compared_of_text() -> None:
    from rich.console import Console

    text = RESULTS["text"] | {
        "answers_identical": True, "num_answers": 8, "tokenizer_identical": True, "chat_template_identical": False,
        "differences": [], "logits_sha256": "a1" * 32, "environment": {"torch": "2.99", "dtype": "float32"},
    }  # fmt: skip
    page = render_report(ReportData("run", {"text": text, "seconds": 1.0}))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_results_table({"text": text}))
    shown = console.export_text()
    for words in ("80 prompts, 988 positions", "8 answers", "torch 2.99", "chat template", "tokenizer"):
        assert words in shown
        assert words in page
    assert "a1" * 32 in page
    assert "chat template (the workflow's with the base's): different" in shown
    bare = render_report(ReportData("run", {"seconds": 1.0}))
    assert "not compared" in bare
    assert "this evaluation does not do it" in bare
