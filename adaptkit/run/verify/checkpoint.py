"""All claims of a checkpoint, one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME

import adaptkit
from adaptkit.errors import AdaptkitError
from adaptkit.evaluation.fresh_base import describe_tokenizer
from adaptkit.files.loading import read_json
from adaptkit.files.writing import STAGING
from adaptkit.model.card.facts import CARD_FILE, README_FILE, Card, Proof, Score, read_card
from adaptkit.model.card.readme import BEGIN
from adaptkit.model.checkpoint import load_base, load_config, rebuild
from adaptkit.model.config import AdaptkitConfig, check_saved_config, packages_of
from adaptkit.model.integrity import HASHES, content_record, holds_content
from adaptkit.model.processor import load_processor
from adaptkit.model.run_folders import FINAL_FOLDER, workflow_folders
from adaptkit.reporting import Reporter
from adaptkit.run.cards import scores_of
from adaptkit.run.verify.files import check_contents, check_readme, check_recorded_files
from adaptkit.run.verify.findings import DIFFERS, HOLDS, UNKNOWN, Finding, compared, guarded
from adaptkit.run.verify.tensors import check_content, check_own, check_tensors
from adaptkit.run.verify.text import check_text

RESULTS_FILE = "results.json"

Prover = Callable[[Any, Any, Proof | None], Iterable[Finding]]


@dataclass
class _Session:
    """What the workflows of a checkpoint share while they are verified.

    Attributes:
        source: Folder or id of the base, instead of the one that the checkpoints name.
        prove_text: Compares text of a base, a tokenizer and the proof of a card.
        bases: Bases that were loaded, by what the configs say of them.
        texts: Findings about text, by base, tokenizer and proof.
    """

    source: str | None
    trust_remote_code: bool
    reporter: Reporter
    prove_text: Prover
    bases: dict[str, Any] = field(default_factory=dict)
    texts: dict[tuple[str, ...], list[Finding]] = field(default_factory=dict)

    def base(self, config: AdaptkitConfig, folder: Path) -> Any:
        """The base of a workflow, whatever it holds."""
        key = json.dumps(config.base, sort_keys=True, default=str)
        if key not in self.bases:
            self.bases.clear()  # there is room for one
            with self.reporter.working("loading the base"):
                base = load_base(
                    folder,
                    source=self.source,
                    allow_different_base=True,
                    trust_remote_code=self.trust_remote_code,
                )
            self.bases[key] = base.to("cuda" if torch.cuda.is_available() else "cpu")
        return self.bases[key]


def verify_checkpoint(
    checkpoint: Path,
    *,
    base: str | None = None,
    workflow: str | None = None,
    trust_remote_code: bool = False,
    reporter: Reporter | None = None,
    prove_text: Prover = check_text,
) -> dict[str, list[Finding]]:
    """Recompute what the workflows of a checkpoint claim.

    Args:
        checkpoint: A workflow's folder, or a run directory.
        base: Folder or id of the base; by default the one that the checkpoint names.
        workflow: The only one of a run to verify.
        trust_remote_code: Whether code that comes with the base or tokenizer may be run.
        reporter: Told what is done.
        prove_text: Compares text with a process without adaptkit.

    Returns:
        Findings on each workflow; whatever is damaged is a finding, too.

    Raises:
        ModelError: There is no checkpoint.
    """
    session = _Session(base, trust_remote_code, reporter or Reporter(), prove_text)
    return {name: list(_verify(folder, session)) for name, folder in _folders(checkpoint, workflow).items()}


def _folders(checkpoint: Path, workflow: str | None) -> dict[str, Path]:
    """Folders of all workflows, of damaged ones, too."""
    folders = workflow_folders(checkpoint, workflow)
    final = next(iter(folders.values())).parent
    if workflow is None and final.name == FINAL_FOLDER and checkpoint.resolve() == final.parent.resolve():
        others = {path.name: path for path in sorted(final.glob("*/")) if not path.name.startswith(STAGING)}
        folders |= {name: path for name, path in others.items() if name not in folders}
    return folders


def _verify(folder: Path, session: _Session) -> Iterator[Finding]:
    card: Card | None = None
    try:
        card = read_card(folder)
    except AdaptkitError as error:
        yield Finding(CARD_FILE, DIFFERS, [str(error)])
    else:
        yield from _check_presence(folder, card)
    yield from guarded("nothing else to load", lambda: check_contents(folder, card))
    if card is not None:
        known = card
        yield from guarded("settings", lambda: check_recorded_files(folder, known))
    yield from guarded("tensors", lambda: check_tensors(folder, card))
    try:
        config = load_config(folder)
        values = check_saved_config(read_json(folder / CONFIG_NAME), folder / CONFIG_NAME)
    except AdaptkitError as error:
        yield Finding(CONFIG_NAME, DIFFERS, [str(error)])
        return
    if card is not None:
        yield from guarded(README_FILE, lambda: check_readme(folder, values, known, _is_current(known, config)))
        yield from guarded(RESULTS_FILE, lambda: [_check_scores(folder, known)])
    yield from guarded("base", lambda: _check_models(folder, config, card, session))


def _check_presence(folder: Path, card: Card | None) -> Iterator[Finding]:
    """Whether there is a card; a README that adaptkit generated must have the facts that it is made of."""
    readme = folder / README_FILE
    if card is not None:
        return
    if readme.is_file() and BEGIN.encode() in readme.read_bytes():
        yield Finding(CARD_FILE, DIFFERS, [f"missing, although {README_FILE} was made of it"])
    else:
        yield Finding("model card", UNKNOWN, ["there is none; saving the workflow again writes one"])


def _is_current(card: Card, config: AdaptkitConfig) -> bool:
    return card.adaptkit_version == adaptkit.__version__ and packages_of(config) == config.packages


def _check_scores(folder: Path, card: Card) -> Finding:
    """Compare scores and proof with those of the run that a workflow belongs to."""
    folder = folder.resolve()
    path = folder.parents[1] / RESULTS_FILE
    if not card.scores and not path.is_file():
        return Finding("scores", HOLDS, ["none are claimed"])
    if folder.parent.name != FINAL_FOLDER or not path.is_file():
        return Finding("scores", UNKNOWN, [f"there is no {RESULTS_FILE} of the run that measured them"])
    results = read_json(path)
    measured = scores_of(results, folder.name, list(workflow_folders(folder.parents[1])))
    problems = [*_changed_scores(card, measured), *_changed_proof(card, results.get("text") or {})]
    return compared("scores", problems, f"{len(measured)} scores are those of {RESULTS_FILE}")


def _changed_scores(card: Card, measured: Sequence[Score]) -> Iterator[str]:
    ours, theirs = ({(s.section, s.metric): s for s in scores} for scores in (card.scores, measured))
    for key in dict.fromkeys([*theirs, *ours]):
        said, found = ours.get(key), theirs.get(key)
        if said == found:
            continue
        values = ["nothing" if score is None else f"{score.value:g}" for score in (said, found)]
        detail = "other circumstances" if values[0] == values[1] else f"{values[0]}, and {RESULTS_FILE} {values[1]}"
        yield f"{' '.join(key)}: the card says {detail}"


def _changed_proof(card: Card, text: Mapping[str, Any]) -> Iterator[str]:
    said = {} if card.proof is None else card.proof.model_dump()
    for key in ("logits_sha256", "answers_sha256"):
        if said and key in text and text[key] != said[key]:
            yield f"text {key}: the card says {said[key]}, and {RESULTS_FILE} {text[key]}"


# -- what has to be loaded ---------------------------------------------------------------------------------------------


def _check_models(folder: Path, config: AdaptkitConfig, card: Card | None, session: _Session) -> Iterator[Finding]:
    base = session.base(config, folder)
    yield _frozen_finding("base", config.base, base)
    if config.base.get("architecture") not in (None, type(base).__name__):
        details = [f"{type(base).__name__} instead of {config.base['architecture']}"]
        yield Finding("architecture of the base", DIFFERS, details)
    yield from guarded("workflow", lambda: _check_workflow(folder, config, card, base))
    yield from guarded("text is unchanged", lambda: _check_text(folder, card, base, session))


def _frozen_finding(what: str, expected: Mapping[str, Any], module: Any) -> Finding:
    if expected.get("content_hash") is None:
        return Finding(what, UNKNOWN, ["its content hash is not recorded"])
    if "content_hash_float16" not in expected and holds_content(module, expected):
        return Finding(what, HOLDS, [f"content hash {expected['content_hash']}, of parameters alone"])
    return check_content(what, expected, content_record(module), tuple(HASHES))


def _check_workflow(folder: Path, config: AdaptkitConfig, card: Card | None, base: Any) -> Iterator[Finding]:
    model = rebuild(config, base, {}, folder)
    for name, encoder in model.source_encoders.items():
        yield _frozen_finding(f"encoder of {name}", config.modalities[name]["encoder"], encoder)
    yield from guarded("own tensors only", lambda: check_own(folder, model, config, card))


def _check_text(folder: Path, card: Card | None, base: Any, session: _Session) -> list[Finding]:
    tokenizer = load_processor(folder, trust_remote_code=session.trust_remote_code).tokenizer
    proof = None if card is None else card.proof
    key = (str(id(base)), json.dumps(describe_tokenizer(tokenizer)), "" if proof is None else proof.model_dump_json())
    if key not in session.texts:
        with session.reporter.working("comparing text with a process without adaptkit"):
            session.texts[key] = list(session.prove_text(base, tokenizer, proof))
    return session.texts[key]
