"""The public benchmarks that are known by name: their tasks, their data, and who scores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptkit.evaluation.public_data.layouts import Layout

_ANY_CONFIG = "*"

RULES = {
    "mme": "MME's calculation.py",
    "mmbench": "VLMEvalKit without a judge",
    "mmmu": "MMMU's main_parse_and_eval.py",
    "refcoco": "compute_precision.py of Inner-Adaptor-Architecture",
    "scienceqa": "LLaVA's eval_science_qa.py",
    "docvqa": "ANLS of ST-VQA",
    "vqav2": "vqaEval.py",
    "textvqa": "LLaVA's m4c_evaluator.py",
    "pope": "POPE's evaluate.py",
    "vsr": "VSR's eval_compute_acc_by_rel scripts",
    "mmlu": "evaluate.py of hendrycks/test, on lm-eval's prompts",
    "ceval": "C-Eval's evaluators/llama.py, on lm-eval's prompts",
}
"""Official rules that are applied to a harness's answers."""


@dataclass(frozen=True)
class PublicBenchmark:
    """A benchmark, as the harnesses' task files know it.

    Attributes:
        title: Its name.
        harness: The harness that runs it.
        tasks: Names of its tasks, stock ones and ours; of a group only the group's.
        dataset: Id of the hub's dataset that the tasks name.
        home: Where its authors publish it.
        scorer: What the harness computes.
        official: The official rule that is reported beside it, a key of `RULES`; None where the harness has it.
        layouts: Released layouts that it is read from, besides a copy of the hub's dataset.
        merges: A hub dataset with a configuration a subject, all of which together are the dataset.
        hub_has_media: Whether a copy of the hub's dataset is enough; else a layout is needed.
        license: As its home or the hub's dataset states it; None where neither does.
    """

    title: str
    harness: str
    tasks: tuple[str, ...]
    dataset: str
    home: str
    scorer: str
    official: str | None = None
    layouts: tuple[Layout, ...] = ()
    merges: str | None = None
    hub_has_media: bool = True
    license: str | None = None


_COCO_2014 = {"coco/train2014/": "COCO's pictures of 2014; or images/ in the folder itself"}


def _refcoco(title: str, name: str, hub: str, splits: Mapping[str, str]) -> PublicBenchmark:
    files = {"instances.json": "COCO's annotations", "refs(unc|umd|google).p": "expressions", **_COCO_2014}
    return PublicBenchmark(
        title=title,
        harness="lmms-eval",
        tasks=tuple(f"{name}_bbox_rec_{split}" for split in splits),
        dataset=f"lmms-lab-encoder/{hub}",
        home="github.com/lichengunc/refer",
        scorer="IoU and accuracy at five thresholds of the first box",
        official="refcoco",
        layouts=(Layout("refcoco", (name,), {"default": splits}, files),),
    )


def _mmbench(title: str, task: str, config: str, split: str, patterns: str, file: str, own: bool) -> PublicBenchmark:
    layout = Layout("mmbench", ("mmbench", "LMUData", ""), {config: {split: patterns}}, {file: "the table"})
    return PublicBenchmark(
        title=title,
        harness="lmms-eval",
        tasks=(task,),
        dataset="lmms-lab-encoder/MMBench",
        home="github.com/open-compass/MMBench",
        scorer="letters by lmms-eval's static rules, all orders of the options" + (" (our task file)" if own else ""),
        official="mmbench",
        layouts=(layout,),
    )


def _vsr(split: str) -> PublicBenchmark:
    nested = "|".join(f"{place}{split}/test.jsonl" for place in ("", "splits/", "data/splits/"))
    files = {f"data/splits/{split}/test.jsonl": "captions", "images/": "pictures of COCO 2017; or coco/trainval2017/"}
    hub = f"cambridgeltl/vsr_{split}"
    repository = Layout("vsr", ("vsr", "visual-spatial-reasoning"), {"default": {"test": nested}}, files)
    return PublicBenchmark(
        title=f"VSR ({split})",
        harness="lmms-eval",
        tasks=(f"vsr_{split}",),
        dataset=hub,
        home="github.com/cambridgeltl/visual-spatial-reasoning",
        scorer="accuracy of true and false, by relation and meta-category (our task file)",
        official="vsr",
        layouts=(repository, Layout("vsr", (f"vsr_{split}", hub), {"default": {"test": "test.jsonl"}}, files)),
        hub_has_media=False,
        license="CC BY 4.0",
    )


_PARTS = ("test_clean", "test_other", "dev_clean", "dev_other")
_POPE_PLACES = ("", "coco/", "output/coco/")

BENCHMARKS: tuple[PublicBenchmark, ...] = (
    PublicBenchmark(
        title="MME",
        harness="lmms-eval",
        tasks=("mme",),
        dataset="lmms-lab-encoder/MME",
        home="github.com/BradyFU/Awesome-Multimodal-Large-Language-Models",
        scorer="sums of accuracy and accuracy on both questions of a picture",
        official="mme",
        layouts=(
            Layout(
                "mme",
                ("mme", "MME_Benchmark_release_version", "MME_Benchmark"),
                {"default": {"test": "existence|count|position|color|code_reasoning|OCR|artwork|text_translation"}},
                {"TASK/*.png|jpg, TASK/*.txt": "or TASK/images/ and TASK/questions_answers_YN/"},
            ),
        ),
    ),
    _mmbench(
        "MMBench EN",
        "mmbench_en_dev_static",
        "en",
        "dev",
        "mmbench_dev_en.tsv|mmbench_dev_en_legacy.tsv|mmbench_dev_en_2*.tsv|mmbench_dev_2*.tsv|mmbench_en.tsv",
        "MMBench_DEV_EN.tsv",
        own=False,
    ),
    _mmbench(
        "MMBench CN",
        "mmbench_cn_dev_static",
        "cn",
        "dev",
        "mmbench_dev_cn.tsv|mmbench_dev_cn_legacy.tsv|mmbench_dev_cn_2*.tsv|mmbench_cn.tsv",
        "MMBench_DEV_CN.tsv",
        own=True,
    ),
    _mmbench("CCBench", "ccbench_static", "cc", "test", "ccbench.tsv|ccbench_*.tsv", "CCBench.tsv", own=True),
    PublicBenchmark(
        title="MMMU",
        harness="lmms-eval",
        tasks=("mmmu_val",),
        dataset="lmms-lab-encoder/MMMU",
        home="huggingface.co/datasets/MMMU/MMMU",
        scorer="letters and short answers by MMMU's parser, with changes",
        official="mmmu",
        merges="MMMU/MMMU",
        license="Apache-2.0",
    ),
    _refcoco(
        "RefCOCO",
        "refcoco",
        "RefCOCO",
        {
            "val": "refs(unc).p",
            "testA": "refs(unc).p",
            "testB": "refs(unc).p",
            "test": "refs(google).p",
        },
    ),
    _refcoco("RefCOCO+", "refcoco+", "RefCOCOplus", dict.fromkeys(("val", "testA", "testB"), "refs(unc).p")),
    _refcoco("RefCOCOg", "refcocog", "RefCOCOg", dict.fromkeys(("val", "test"), "refs(umd).p")),
    PublicBenchmark(
        title="ScienceQA",
        harness="lmms-eval",
        tasks=("scienceqa", "scienceqa_img"),
        dataset="lmms-lab-encoder/ScienceQA",
        home="github.com/lupantech/ScienceQA",
        scorer="the letter, alone or before a full stop",
        official="scienceqa",
        layouts=(
            Layout(
                "scienceqa",
                ("scienceqa",),
                dict.fromkeys(
                    ("ScienceQA-FULL", "ScienceQA-IMG"),
                    dict.fromkeys(
                        ("train", "validation", "test"),
                        "problems.json|scienceqa/problems.json|data/scienceqa/problems.json",
                    ),
                ),
                {"problems.json": "", "pid_splits.json": "", "images/test/ID/image.png": "pictures"},
            ),
        ),
        license="CC BY-NC-SA 4.0",
    ),
    PublicBenchmark(
        title="DocVQA",
        harness="lmms-eval",
        tasks=("docvqa_val",),
        dataset="lmms-lab-encoder/DocVQA",
        home="docvqa.org",
        scorer="ANLS",
        official="docvqa",
        layouts=(
            Layout(
                "vqa",
                ("docvqa",),
                {
                    "DocVQA": {
                        split: "|".join(f"{place}{name}_v1.0*.json" for place in ("", "spdocvqa_qas/", f"{name}/"))
                        for split, name in (("validation", "val"), ("test", "test"))
                    }
                },
                {"val_v1.0_withQT.json": "questions", "documents/": "pages; or spdocvqa_images/"},
                kind="DocVQA",
            ),
        ),
    ),
    PublicBenchmark(
        title="VQAv2",
        harness="lmms-eval",
        tasks=("vqav2_val",),
        dataset="lmms-lab-encoder/VQAv2",
        home="visualqa.org",
        scorer="accuracy by people who agree, always normalised",
        official="vqav2",
        layouts=(
            Layout(
                "vqa",
                ("vqav2", "vqa", "vqa_v2"),
                {
                    "default": {
                        "validation": "v2_OpenEnded_mscoco_val2014_questions.json",
                        "testdev": "v2_OpenEnded_mscoco_test-dev2015_questions.json",
                        "test": "v2_OpenEnded_mscoco_test2015_questions.json",
                    }
                },
                {
                    "v2_OpenEnded_mscoco_val2014_questions.json": "",
                    "v2_mscoco_val2014_annotations.json": "",
                    "coco/val2014/": "COCO's pictures of 2014; or val2014/ in the folder itself",
                },
                kind="vqav2",
            ),
        ),
        license="CC BY 4.0",
    ),
    PublicBenchmark(
        title="TextVQA",
        harness="lmms-eval",
        tasks=("textvqa_val",),
        dataset="lmms-lab-encoder/textvqa",
        home="textvqa.org",
        scorer="accuracy by people who agree, always normalised",
        official="textvqa",
        layouts=(
            Layout(
                "vqa",
                ("textvqa",),
                {
                    "default": {
                        split: f"TextVQA_0.5.1_{name}.json"
                        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
                    }
                },
                {"TextVQA_0.5.1_val.json": "questions", "train_images/": "pictures of training and validation"},
                kind="textvqa",
            ),
        ),
        license="CC BY 4.0",
    ),
    PublicBenchmark(
        title="POPE",
        harness="lmms-eval",
        tasks=("pope", "pope_adv", "pope_pop", "pope_random"),
        dataset="lmms-lab-encoder/POPE",
        home="github.com/AoiDragon/POPE",
        scorer="accuracy, precision, recall, F1; yes and no exactly",
        official="pope",
        layouts=(
            Layout(
                "pope",
                ("pope",),
                {
                    "default": {"test": "|".join(f"{place}coco_pope_*.json" for place in _POPE_PLACES)},
                    "Full": {
                        kind: "|".join(f"{place}coco_pope_{kind}.json" for place in _POPE_PLACES)
                        for kind in ("adversarial", "popular", "random")
                    },
                },
                {"coco_pope_adversarial|popular|random.json": "questions", "coco/val2014/": "COCO's pictures of 2014"},
            ),
        ),
    ),
    _vsr("random"),
    _vsr("zeroshot"),
    PublicBenchmark(
        title="MMLU",
        harness="lm-eval",
        tasks=("mmlu",),
        dataset="cais/mmlu",
        home="github.com/hendrycks/test",
        scorer="the likeliest of four letters, weighed by question",
        official="mmlu",
        layouts=(
            Layout(
                "mmlu",
                ("mmlu",),
                {
                    _ANY_CONFIG: {
                        split: f"{name}/{{config}}_{name}.csv"
                        for split, name in (("test", "test"), ("validation", "val"), ("dev", "dev"))
                    }
                },
                {"test/SUBJECT_test.csv": "questions", "dev/SUBJECT_dev.csv": "examples"},
            ),
        ),
        license="MIT",
    ),
    PublicBenchmark(
        title="C-Eval",
        harness="lm-eval",
        tasks=("ceval-valid",),
        dataset="ceval/ceval-exam",
        home="cevalbenchmark.com",
        scorer="the likeliest of four letters, weighed by question",
        official="ceval",
        layouts=(
            Layout(
                "ceval",
                ("ceval", "c-eval", "ceval-exam"),
                {_ANY_CONFIG: {split: f"{split}/{{config}}_{split}.csv" for split in ("test", "val", "dev")}},
                {"val/SUBJECT_val.csv": "questions", "dev/SUBJECT_dev.csv": "examples"},
            ),
        ),
        license="CC BY-NC-SA 4.0",
    ),
    PublicBenchmark(
        title="LibriSpeech",
        harness="lmms-eval",
        tasks=tuple(f"librispeech_{part}" for part in _PARTS),
        dataset="lmms-lab-audio/librispeech",
        home="openslr.org/12",
        scorer="word error rate after Whisper's English normaliser",
        layouts=(
            Layout(
                "librispeech",
                ("librispeech",),
                {f"librispeech_{part}": {f"librispeech_{part}": part.replace("_", "-")} for part in _PARTS},
                {"test-clean/SPEAKER/CHAPTER/*.flac, *.trans.txt": "as the archives unpack"},
            ),
        ),
        license="CC BY 4.0",
    ),
)
"""The benchmarks of the documentation's table."""


def benchmark_of(dataset: str, task: str | None = None) -> PublicBenchmark | None:
    """The benchmark that a hub dataset, and of several the one that a task, belongs to."""
    found = [benchmark for benchmark in BENCHMARKS if benchmark.dataset == dataset]
    return next((b for b in found if task in b.tasks), found[0] if found else None)
