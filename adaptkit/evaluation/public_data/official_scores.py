"""Official rules beside the harness's, applied to the same answers that a harness has logged."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaptkit.errors import AdaptkitError
from adaptkit.evaluation.boxes import score_boxes
from adaptkit.evaluation.official import ceval, docvqa, mmbench, mme, mmlu, mmmu, pope, refcoco, scienceqa, vqa, vsr
from adaptkit.evaluation.public_data.benchmarks import BENCHMARKS, RULES, PublicBenchmark
from adaptkit.evaluation.public_data.stock_tasks import find_tasks
from adaptkit.files.folder import mean
from adaptkit.files.loading import cause

Samples = Sequence[Mapping[str, Any]]
_LETTERS = "ABCDEFGHI"


@dataclass
class OfficialScores:
    """Scores by a benchmark's own rule.

    Attributes:
        scores: The numbers that are published.
        details: By subject, category and the like.
        notes: What a reader should know.
    """

    scores: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def named(self, official: str) -> dict[str, Any]:
        """With the name of the rule, for `results.json`."""
        return {"rule": RULES[official], "scores": self.scores, "details": self.details, "notes": self.notes}


@dataclass(frozen=True)
class _Answered:
    """A row of the dataset as it was before the harness changed it, and the answer."""

    doc: Mapping[str, Any]
    text: str
    sample: Mapping[str, Any]
    task: str
    is_original: bool


def official_scores(
    samples: Mapping[str, Samples], datasets: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Official scores of all tasks that have a rule of their authors besides the harness's.

    Args:
        samples: What a harness logged, by the name of each task, as `simple_evaluate` returns it.
        datasets: The split of each task's dataset, in the harness's order. lmms-eval changes answers of VQA's people
            while it scores, so that without the split VQA's own rule cannot be applied.

    Returns:
        By the name of the task, or of a benchmark of many subjects: `{"rule", "scores", "details", "notes"}`. Tasks
        without such a rule, and tasks that nothing was asked of, are omitted.
    """
    groups: dict[str, tuple[PublicBenchmark, list[_Answered]]] = {}
    known = {leaf.name: (name, b) for b in BENCHMARKS for name in b.tasks for leaf in find_tasks(name, b.harness)}
    for task, logged in samples.items():
        name, benchmark = known.get(task, (task, None))
        if benchmark is not None and benchmark.official is not None:
            answers = groups.setdefault(name, (benchmark, []))[1]
            answers += _answered(task, logged, (datasets or {}).get(task))
    rules = ((name, benchmark.official or "", answers) for name, (benchmark, answers) in groups.items() if answers)
    return {name: _scored(rule, answers).named(rule) for name, rule, answers in rules}


def _scored(official: str, answers: Sequence[_Answered]) -> OfficialScores:
    """Scores by a rule, or why it does not fit: the harness's scores, which took long, are not to be lost for that."""
    try:
        return _RULES[official](answers)
    except (AdaptkitError, LookupError, TypeError, ValueError, SyntaxError) as error:
        return OfficialScores({}, notes=[f"not applied, as rows are not as expected: {cause(error)}"])


def _answered(task: str, logged: Samples, dataset: Any) -> Iterator[_Answered]:
    rows = None if dataset is None else _without_decoding(dataset)
    for sample in logged:
        answer = sample["filtered_resps"][0] if sample["filtered_resps"] else ""
        text = answer if isinstance(answer, str) else answer[0] if isinstance(answer, list) else ""
        doc = sample["doc"] if rows is None else rows[int(sample["doc_id"])]
        yield _Answered(doc, str(text), sample, task, rows is not None)


def _without_decoding(dataset: Any) -> Any:
    """The rows of a dataset, whose pictures and recordings stay as they are stored."""
    from datasets import Audio, Image

    dataset = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
    features = getattr(dataset, "features", None) or {}
    for name, kind in features.items():
        if isinstance(kind, Image | Audio):
            dataset = dataset.cast_column(name, type(kind)(decode=False))
    return dataset


def _mme(answers: Sequence[_Answered]) -> OfficialScores:
    by_picture: dict[tuple[str, str], list[mme.Line]] = defaultdict(list)
    for one in answers:
        written = one.text.replace("\t", " ").replace("\n", " ") + "\n"  # a line of the tool's files
        line = mme.Line(one.doc["question_id"], one.doc["answer"].lower().strip(), written)
        by_picture[one.doc["category"], one.doc["question_id"]].append(line)
    lines: dict[str, list[mme.Line]] = defaultdict(list)
    for (category, _), pair in by_picture.items():
        lines[category] += pair if len(pair) == 2 else []
    left_out = sum(len(pair) != 2 for pair in by_picture.values())
    notes = [f"{left_out} pictures with one of their two questions are omitted"] if left_out else []
    found = mme.score_lines(lines)["official"]
    scores = {name: found[name] for name in ("perception", "cognition", "total")}
    return OfficialScores(scores, {"tasks": found["tasks"]}, notes)


def _mmbench(answers: Sequence[_Answered]) -> OfficialScores:
    texts = {int(one.doc["index"]): one.text for one in answers}
    questions = [mmbench.as_question(_mmbench_row(one.doc), one.task) for one in answers]
    found = mmbench.score_questions([question for question in questions if question.gold], texts)
    exact = found["vlmevalkit_exact_matching"]
    scores = {
        name: exact[key]["Overall"] for name, key in (("circular", "circular"), ("first pass", "first_pass_only"))
    }
    details = {"circular": exact["circular"], "first_pass_only": exact["first_pass_only"]}
    unread = sum(letter is None for letter in exact["extracted"].values())
    notes = [f"{unread} answers name no option, and are wrong; the official run asks a judge there"] if unread else []
    return OfficialScores(scores, details, notes)


def _mmbench_row(doc: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the hub's dataset as the release has it: what is `nan` is empty."""
    row = {key: "" if value is None or value == "nan" else value for key, value in doc.items()}
    return {**row, "l2-category": row.get("L2-category", "")}


def _mmmu(answers: Sequence[_Answered]) -> OfficialScores:
    right: dict[str, list[bool]] = defaultdict(list)
    num_unread = 0
    for one in answers:
        gold = mmmu.read_gold(one.doc["answer"], one.doc["id"])
        if one.doc["question_type"] == mmmu.MULTIPLE_CHOICE:
            options = dict(zip(_LETTERS, ast.literal_eval(one.doc["options"]), strict=False))
            letter = mmmu.parse_choice(one.text, list(options), options)
            num_unread += letter is None
            verdict = letter in ([gold] if isinstance(gold, str) else gold)
        else:
            verdict = mmmu.is_right_open(gold, mmmu.parse_open(one.text))
        right[mmmu.subject_of(one.doc["id"])].append(verdict)
    table = mmmu.by_subject(right)
    drawn = f"{num_unread} answers name no option, and are wrong here; the official parser draws a letter at random"
    notes = [drawn] if num_unread else []
    return OfficialScores({"Overall": table["Overall"]["acc"]}, table, notes)


def _refcoco(answers: Sequence[_Answered]) -> OfficialScores:
    hits = []
    for one in answers:
        width, height = one.doc["image_width"], one.doc["image_height"]
        x1, y1, x2, y2 = one.doc["bbox"]
        gold = (x1 * width, y1 * height, x2 * width, y2 * height)
        hits.append(score_boxes(one.text, gold, width, height, is_padded=False).hit)
    found = refcoco.precision(hits)
    return OfficialScores({"precision": found["precision"]}, found)


def _scienceqa(answers: Sequence[_Answered]) -> OfficialScores:
    problems = {number: {**one.doc, "image": _has_image(one)} for number, one in enumerate(answers)}
    choices = {number: problem["choices"] for number, problem in problems.items()}
    right = {
        number: scienceqa.llava_index(one.text, choices[number]) == one.doc["answer"]
        for number, one in enumerate(answers)
    }
    contexts = scienceqa.by_context(problems, right)
    notes = []
    if any(problem["image"] is None for problem in problems.values()):
        contexts = {name: value for name, value in contexts.items() if name not in ("acc_has_image", "acc_no_context")}
        notes = ["which problems have a picture is not in the log: their groups are omitted"]
    scores = {"acc": 100 * mean(right.values())}
    return OfficialScores(scores, contexts, notes)


def _has_image(one: _Answered) -> bool | None:
    if one.task == "scienceqa_img":
        return True
    return one.doc["image"] is not None if one.is_original else None


def _docvqa(answers: Sequence[_Answered]) -> OfficialScores:
    values = [max(docvqa.st_vqa_similarity(one.text, gold) for gold in one.doc["answers"]) for one in answers]
    return OfficialScores({"anls": mean(values)})


def _textvqa(answers: Sequence[_Answered]) -> OfficialScores:
    values = [vqa.text_vqa_accuracy(one.text, list(one.doc["answers"])) for one in answers]
    return OfficialScores({"accuracy": 100 * mean(values)})


def _vqav2(answers: Sequence[_Answered]) -> OfficialScores:
    if not all(one.is_original for one in answers):
        return OfficialScores({}, notes=["the harness's log has changed answers of people: not scored"])
    values = [vqa.vqa_accuracy(one.text, list(one.doc["answers"])) for one in answers]
    return OfficialScores({"accuracy": round(100 * mean(values), 2)})


def _pope(answers: Sequence[_Answered]) -> OfficialScores:
    found = pope.score_answers([one.text for one in answers], [one.doc["answer"].lower() for one in answers])
    return OfficialScores(found)


def _vsr(answers: Sequence[_Answered]) -> OfficialScores:
    right = [int(vsr.answer_label(one.text) == one.doc["label"]) for one in answers]
    found = vsr.by_relation([one.doc["relation"] for one in answers], right)
    unread = sum(vsr.answer_label(one.text) is None for one in answers)
    notes = [f"{unread} answers say neither true nor false, and are wrong"] if unread else []
    return OfficialScores({"accuracy": found["accuracy"]}, found, notes)


def _likeliest(one: _Answered) -> int:
    """Index of the likeliest letter; of equal ones the first."""
    values = [float(value[0]) for value in one.sample["filtered_resps"]]
    return values.index(max(values))


def _mmlu(answers: Sequence[_Answered]) -> OfficialScores:
    subjects: dict[str, list[int]] = defaultdict(list)
    for one in answers:
        subjects[one.doc["subject"]].append(int(_likeliest(one) == one.doc["answer"]))
    found = mmlu.by_subject(subjects)
    scores = {"average": found["average"], "mean of subjects": found["mean_of_subjects"]}
    return OfficialScores(scores, found)


def _ceval(answers: Sequence[_Answered]) -> OfficialScores:
    subjects: dict[str, list[bool]] = defaultdict(list)
    for one in answers:
        subject = one.task.partition("_")[2]
        subjects[subject].append(ceval.LETTERS[_likeliest(one)] == one.doc["answer"].strip())
    found = ceval.mean_of_subjects(subjects)
    scores = {"mean of subjects": found["average_over_subjects"]}
    return OfficialScores(scores, found)


_RULES: dict[str, Callable[[Sequence[_Answered]], OfficialScores]] = {
    "mme": _mme,
    "mmbench": _mmbench,
    "mmmu": _mmmu,
    "refcoco": _refcoco,
    "scienceqa": _scienceqa,
    "docvqa": _docvqa,
    "vqav2": _vqav2,
    "textvqa": _textvqa,
    "pope": _pope,
    "vsr": _vsr,
    "mmlu": _mmlu,
    "ceval": _ceval,
}
