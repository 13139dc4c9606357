"""Official rules on what a harness has logged: scores that are computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("datasets")
pytest.importorskip("lm_eval")

from importlib.util import find_spec

from adaptkit.evaluation.public_data import official_scores

pytestmark = pytest.mark.skipif(find_spec("lmms_eval") is None, reason="the extra eval is not installed")


def logged(*rows: tuple[dict[str, Any], Any]) -> list[dict[str, Any]]:
    return [
        {"doc_id": number, "doc": doc, "filtered_resps": answer if isinstance(answer, list) else [answer]}
        for number, (doc, answer) in enumerate(rows)
    ]


def scores(task: str, *rows: tuple[dict[str, Any], Any], datasets: Any = None) -> dict[str, Any]:
    return official_scores({task: logged(*rows)}, datasets)[task]


def test_mme_looks_at_four_characters_and_leaves_out_half_pairs() -> None:
    def row(picture: str, answer: str, gold: str, category: str = "OCR") -> tuple[dict[str, Any], str]:
        return {"question_id": picture, "category": category, "answer": gold}, answer

    found = scores("mme", row("a", "Yes.", "Yes"), row("a", "know", "No"), row("b", "y", "Yes"), row("b", "no", "No"),
                   row("c", "yes", "Yes"))  # fmt: skip
    assert found["scores"] == {"perception": pytest.approx(75 + 50), "cognition": 0, "total": pytest.approx(125)}
    assert "1 pictures" in found["notes"][0]


def test_mmbench_wants_all_orders_right() -> None:
    row = {"question": "?", "hint": "nan", "category": "c", "L2-category": "l", "C": "nan", "D": "nan"}
    first = {**row, "index": 3, "A": "cat", "B": "dog", "answer": "A"}
    turned = {**row, "index": 10**6 + 3, "A": "dog", "B": "cat", "answer": "B"}
    assert scores("mmbench_en_dev_static", (first, "A"), (turned, "A"))["scores"] == {"circular": 0, "first pass": 1}
    assert scores("ccbench_static", (first, "A."), (turned, "(B)"))["scores"] == {"circular": 1, "first pass": 1}


def test_mmmu_counts_what_is_not_read_as_wrong() -> None:
    row = {"id": "validation_Art_Theory_1", "options": "['x', 'y']", "answer": "B", "question_type": "multiple-choice"}
    opened = {"id": "validation_Math_2", "options": "[]", "answer": "['0.5', '1/2']", "question_type": "open"}
    found = scores("mmmu_val", (row, "(B)"), ({**row, "answer": "A"}, "no idea"), (opened, "so it is 0.50"))
    assert found["scores"] == {"Overall": 0.667}
    assert found["details"]["Art_Theory"] == {"num": 2, "acc": 0.5}
    assert "1 answers name no option" in found["notes"][0]


def test_refcoco_takes_any_of_several_boxes_and_no_words() -> None:
    row = {"bbox": [0.1, 0.1, 0.5, 0.5], "image_width": 200, "image_height": 100}
    right = "[0.1,0.1,0.5,0.5]"
    found = scores("refcoco_bbox_rec_val", (row, f"[0.9,0.9,1,1]; {right}"), (row, right), (row, f"It is {right}"),
                   (row, "none"))  # fmt: skip
    assert found["scores"] == {"precision": 0.5}


def test_vqa_needs_what_people_said() -> None:
    people = [{"answer": "cat", "answer_id": number} for number in range(10)]
    row = {"answers": people}
    assert scores("vqav2_val", (row, "cat"))["scores"] == {}
    found = scores("vqav2_val", (row, "cat"), (row, "a cat"), datasets={"vqav2_val": [row, row]})
    assert found["scores"] == {"accuracy": 50}
    assert scores("textvqa_val", ({"answers": ["stop"] * 2 + ["go"] * 8}, "Stop"))["scores"]["accuracy"] == (
        pytest.approx(100 * (2 * 1 / 3 + 8 * 2 / 3) / 10)
    )


def test_yes_and_no_of_pope_by_words_that_deny() -> None:
    rows = [({"answer": "yes"}, "Yes, there is."), ({"answer": "no"}, "There is not. Yes"), ({"answer": "no"}, "Nope")]
    assert scores("pope_adv", *rows)["scores"] == {
        "accuracy": pytest.approx(2 / 3),
        "precision": 0.5,
        "recall": 1,
        "f1": pytest.approx(2 / 3),
        "yes_ratio": pytest.approx(2 / 3),
    }


def test_documents_and_captions() -> None:
    assert scores("docvqa_val", ({"answers": ["abcd"]}, " ABCX "))["scores"] == {"anls": 0.75}
    rows = [
        ({"relation": "on", "label": 1}, "True."),
        ({"relation": "on", "label": 0}, "Yes"),
        ({"relation": "odd", "label": 1}, ""),
    ]
    found = scores("vsr_zeroshot", *rows)
    assert found["scores"] == {"accuracy": pytest.approx(1 / 3)}
    assert found["details"]["by_meta_category"] == {"Topological": [0.5, 2]}


def test_subjects_are_gathered_and_weigh_as_in_the_rule() -> None:
    def likely(letter: str) -> list[Any]:
        return [(-1.0 if one == letter else -2.0, False) for one in "ABCD"]

    mmlu = {
        "mmlu_anatomy": logged(*[({"subject": "anatomy", "answer": 1}, likely("B"))] * 3),
        "mmlu_virology": logged(({"subject": "virology", "answer": 0}, likely("B"))),
    }
    found = official_scores(mmlu)["mmlu"]
    assert found["scores"] == {"average": 0.75, "mean of subjects": 0.5}
    ceval = {
        "ceval-valid_law": logged(*[({"answer": "A"}, likely("A"))] * 3),
        "ceval-valid_logic": logged(({"answer": "C"}, likely("D"))),
    }
    assert official_scores(ceval)["ceval-valid"]["scores"] == {"mean of subjects": 50}


def test_rows_of_another_shape_cost_no_scores_of_the_harness() -> None:
    found = scores("mme", ({"other": 1}, "yes"))
    assert found["scores"] == {}
    assert "question_id" in found["notes"][0]
    assert official_scores({"hellaswag": logged(({}, "x"))}) == {}
