"""lmms-eval's functions for MMBench CN and CCBench, and its scoring without a judge, which it only has for English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.tasks.mmbench.cc_utils import mmbench_cn_cc_doc_to_text as cc_doc_to_text
from lmms_eval.tasks.mmbench.cc_utils import mmbench_cn_cc_process_results as cc_process_results
from lmms_eval.tasks.mmbench.cn_utils import mmbench_doc_to_text as cn_doc_to_text
from lmms_eval.tasks.mmbench.cn_utils import mmbench_doc_to_visual as doc_to_visual
from lmms_eval.tasks.mmbench.cn_utils import mmbench_evaluator
from lmms_eval.tasks.mmbench.cn_utils import mmbench_process_results as cn_process_results


def static_score(results: Sequence[Mapping[str, Any]], args: Any) -> float:
    """Percentage of questions that are right with their options in every order."""
    overall, _, _ = mmbench_evaluator.eval_result(results, eval_method="static")
    return 100 * float(overall)


__all__ = [
    "cc_doc_to_text",
    "cc_process_results",
    "cn_doc_to_text",
    "cn_process_results",
    "doc_to_visual",
    "static_score",
]
