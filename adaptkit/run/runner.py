"""All stages of a recipe, from its names to finished workflows: what `adaptkit train` and comparisons run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

import adaptkit
from adaptkit.build import (
    CachedFeatures,
    MediaStore,
    build_sources,
    build_stage_data,
    build_validation,
    built_parts,
    check_validation,
    find_held_out,
    split_sources,
    stage_datasets,
    stage_mixture,
    task_sources,
)
from adaptkit.chat.encoding import special_tokens_in
from adaptkit.chat.template import describe_end_of_turn
from adaptkit.chat.vocabulary import describe_special_tokens, describe_unknown_words
from adaptkit.errors import AdaptkitError, RunError, first_few
from adaptkit.evaluation.differences import differences_of
from adaptkit.evaluation.fresh_base import Description, describe_model
from adaptkit.evaluation.text_identity import loading_of
from adaptkit.files.writing import remove_leftovers, staged_folder
from adaptkit.interfaces import DataSource
from adaptkit.model.card.writing import CardFiles
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.inspection import describe_components
from adaptkit.model.integrity import frozen_content
from adaptkit.model.loss import chosen_mode
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.model.run_folders import FINAL_FOLDER
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.processes.group import (
    ENGINES,
    SHARDED,
    check_strategy,
    is_main_process,
    main_process_first,
    num_processes,
    on_main_process,
    process_group,
    wait_for_all,
)
from adaptkit.recipe import Recipe, dump_recipe, for_processes
from adaptkit.reporting import Reporter, StageStart
from adaptkit.run.batch_sizes import device_memory, with_sizes
from adaptkit.run.cards import training_card
from adaptkit.run.features import cache_features
from adaptkit.run.loaded import LoadedModels, load_models
from adaptkit.run.requirements import require_all, require_places, require_space
from adaptkit.run.resuming import (
    check_resume,
    dated,
    earlier_recipe,
    locked,
    recipe_identity,
    recorded,
    refuse_other_models,
    refuse_outdated,
    stage_resume,
)
from adaptkit.stage import StageConfig
from adaptkit.surgery import max_positions
from adaptkit.training.checkpoints import load_weights
from adaptkit.training.distributed.strategies import check_optimizers, check_policy
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.preparation import prepared
from adaptkit.training.stage import StageResult, train_stage
from adaptkit.training.wandb_run import wandb_run_closed

METRICS_FILE = "metrics.jsonl"
BAD_SAMPLES_FILE = "bad_samples.jsonl"


@dataclass
class Run:
    """One run of a recipe, and what its stages share.

    Attributes:
        models: The frozen models that its stages share.
        output_dir: The run directory.
        reporter: Told what the run does.
        sources: Datasets of the stages, by name, without the rows that are held out.
        measured: The same for validation: the held-out rows where there are some.
        held_out: Which rows those are.
        task_sources: What each benchmark reads, opened before training so that what is wrong shows early.
        described: The base as it was loaded, by which it is judged after each stage.
        workflows: Model and processor of each workflow, as its last stage left it.
        stages: Result of each stage.
        cached: Features of modalities that are encoded beforehand.
    """

    models: LoadedModels
    output_dir: Path
    reporter: Reporter
    sources: dict[str, DataSource]
    task_sources: list[dict[str, dict[str, DataSource]]]
    described: Description
    measured: dict[str, DataSource] = field(default_factory=dict)
    held_out: dict[str, list[int]] = field(default_factory=dict)
    workflows: dict[str, tuple[AdaptkitForConditionalGeneration, AdaptkitProcessor]] = field(default_factory=dict)
    stages: dict[str, StageResult] = field(default_factory=dict)
    cached: dict[str, CachedFeatures] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """What is run."""
        return self.models.recipe

    def build_stage_model(self, stage: StageConfig) -> AdaptkitForConditionalGeneration:
        """The stage's workflow with the weights of the stage that it starts from, if that has run."""
        before = self.stages.get(stage.start_from or "")
        return self.models.build_stage_model(stage, None if before is None else before.checkpoint)


def prepare_run(recipe: Recipe, output_dir: Path, reporter: Reporter) -> Run:
    """Load what all stages share.

    Raises:
        DataError: A dataset is malformed or empty.
        ModelError: A model cannot be loaded.
    """
    with reporter.working(f"loading the base {recipe.base.path}"):
        models = load_models(recipe, _device(sharded=_shards_base(recipe)))
    described = describe_model(models.base, tensors=not _shards_base(recipe)) | _described_loading(models.base)
    names = dict.fromkeys(name for stage in recipe.stages for name in stage_datasets(stage))
    opened = main_process_first(lambda: build_sources(recipe, names))
    report_token_warnings(models, opened, reporter)
    held_out = on_main_process(lambda: hold_out(recipe, opened, reporter))
    sources = split_sources(opened, held_out)
    check_validation(recipe, sources.measured)
    asked = [task_sources(recipe, task, sources) for task in recipe.evaluation.tasks] if is_main_process() else []
    return Run(models, output_dir, reporter, sources.trained, asked, described, sources.measured, held_out)


def hold_out(recipe: Recipe, sources: Mapping[str, DataSource], reporter: Reporter) -> dict[str, list[int]]:
    """Which rows of each dataset are held out, by `find_held_out`; that takes a while, since all media are read."""
    if not any(recipe.data[name].holdout for name in sources):
        return {}
    with reporter.progress("finding held-out samples") as advance:
        held_out = find_held_out(recipe, sources, advance)
    for name, rows in held_out.items():
        reporter.message(f"data.{name}: {len(rows):,} of {len(sources[name]):,} samples are held out from training")
    return held_out


def _shards_base(recipe: Recipe) -> bool:
    """Whether stages shard the frozen weights over processes, so that no device holds all of them."""
    return strategy_of(recipe) in SHARDED


def strategy_of(recipe: Recipe) -> str:
    """How the processes of this run share the work."""
    return recipe.accelerator.strategy_of(num_processes())


def _device(*, sharded: bool) -> str | None:
    """Where frozen models go: this process's GPU, if there is one and it holds all of them."""
    return "cuda" if torch.cuda.is_available() and not sharded else None


def train_recipe(recipe: Recipe, output_dir: Path, reporter: Reporter, *, resume: str | None = None) -> Run:
    """Train all stages of a recipe into a run directory.

    Args:
        resume: `"auto"` continues the run that the directory holds, from the newest complete checkpoint of each stage;
            a checkpoint's path continues its stage from there.

    Raises:
        RecipeError: Something the recipe names is missing, the directory holds a run already, the recipe does not fit
            the number of processes, or `resume` is not a checkpoint.
        RunError: A stage failed, or it changed the base.
        RunStoppedError: SIGTERM asked the run to stop, and a stage has saved.
    """
    with ExitStack() as stack:
        stack.enter_context(wandb_run_closed())
        stack.enter_context(process_group())
        check_strategy(strategy_of(recipe), num_processes())
        check_resume(recipe, output_dir, resume)
        require_all(recipe, strategy_of(recipe))
        check_stages(recipe, strategy_of(recipe))
        on_main_process(lambda: require_places(recipe, output_dir))
        stack.enter_context(locked(output_dir))
        asked = recipe
        earlier = on_main_process(lambda: earlier_recipe(output_dir, resume))
        recipe = dated(for_processes(recipe, num_processes(), earlier), earlier)
        _report_resplit(asked, recipe, reporter)
        # The recipe is recorded with what it leaves open, so that it runs on other devices, too
        split = on_main_process(lambda: with_sizes(recipe, num_processes(), device_memory(), reporter))
        run = prepare_run(split, output_dir, reporter)
        if is_main_process():
            stack.enter_context(recorded(_recipe_header() + dump_recipe(recipe), output_dir))
        wait_for_all()
        if not _shards_base(recipe):
            _try_stages(run)
        _run_stages(run, resume)
    if is_main_process():  # by itself from here: the others are done
        _finish(run)
    return run


def _report_resplit(asked: Recipe, recipe: Recipe, reporter: Reporter) -> None:
    """Report stages whose gradient accumulation changes because another number of processes resumes the run."""
    for before, stage in zip(asked.stages, recipe.stages, strict=True):
        if before.num_passes != stage.num_passes:
            reporter.message(
                f"stage {stage.name!r}: gradient_accumulation_steps is {stage.gradient_accumulation_steps} instead of "
                f"{before.gradient_accumulation_steps}, so that a step of {num_processes()} process(es) has "
                "as many samples as before"
            )


def report_token_warnings(models: LoadedModels, sources: Mapping[str, DataSource], reporter: Reporter) -> None:
    """Warn of an end of turn that is not a token, of words that the tokenizer does not know, and of special tokens."""
    if not is_main_process():
        return
    tokenizer, as_tokens = models.tokenizer, models.recipe.base.special_tokens_in_text
    find = partial(special_tokens_in, tokenizer)
    warnings = [describe_end_of_turn(tokenizer, tokenizer.chat_template)]
    for name, source in sources.items():
        warnings.append(describe_unknown_words(tokenizer, name, source))
        warnings.append(describe_special_tokens(name, source, find, as_tokens=as_tokens))
    for warning in warnings:
        if warning is not None:
            reporter.warning(warning)


def check_stages(recipe: Recipe, strategy: str) -> None:
    """Make sure, before the first stage trains, that optimizer and policy of each suit the strategy and this machine.

    Raises:
        AdaptkitError: One does not.
    """
    for stage in recipe.stages:
        check_optimizers(strategy, stage)
        insertion = recipe.workflows[stage.workflow].insertion
        if "insertion" in built_parts(recipe, stage):
            check_policy(strategy, get_plugin_manager().build("insertion policy", insertion.policy, insertion.values()))


def _try_stages(run: Run) -> None:
    """Build every stage's model and optimizer once, so that errors of later stages show before the first one trains.

    Raises:
        AdaptkitError: A stage cannot be trained as the recipe says; the message names it.
        RunError: A stage's checkpoint is larger than what the disk has left.
    """
    for stage in run.recipe.stages:
        policy = run.recipe.workflows[stage.workflow].insertion.policy
        try:
            model = run.build_stage_model(stage)
            _require_unchanged(run, f"the policy {policy!r} of the workflow {stage.workflow!r}", tensors=False)
            model.set_trainable(stage.train)
            with prepared(model, stage):
                build_optimizer(model, stage.train, stage.optimizer)
                chosen_mode(stage.loss, model.get_output_embeddings(), 0)
        except AdaptkitError as error:
            raise type(error)(f"stage {stage.name!r}: {error}") from error
        own = sum(tensor.nbytes for tensor in model.trainable_state_dict().values())
        averages = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        del model
        if is_main_process():
            require_space(run.output_dir, own + averages, stage.name)


def _run_stages(run: Run, resume: str | None) -> None:
    whole = not _shards_base(run.recipe)
    stages = run.recipe.stages
    for number, stage in enumerate(stages, start=1):
        if number > 1 and not whole:
            _reload_frozen(run)  # the stage before has sharded it, and has compared the shards
        _run_stage(run, stage, f"{number}/{len(stages)}", resume)
        if whole:
            _require_unchanged(run, f"stage {stage.name!r}")
        run.reporter.message(f"stage {stage.name}: the base is unchanged: {_compared(run, whole=whole)}")


def _require_unchanged(run: Run, who: str, *, tensors: bool = True) -> None:
    """Make sure that the base is as it was loaded."""
    before = run.described
    if not tensors:
        before = {name: value for name, value in before.items() if not name.startswith("tensor ")}
    now = describe_model(run.models.base, tensors=tensors) | _described_loading(run.models.base)
    changed = differences_of(now, before)
    if changed:
        what = "tensors of " * any(name.startswith("tensor ") for name in changed) + "the frozen base"
        raise RunError(
            f"{who} changed {what}: {first_few(changed, separator='; ')}. The run has been stopped; "
            "do not use its result. This is an error in a plugin or in adaptkit; please report it with the recipe."
        )


def _compared(run: Run, *, whole: bool) -> str:
    """What was compared of the base after a stage."""
    if not whole:
        return "every tensor was compared with itself before the stage, shard by shard"
    num_tensors = sum(name.startswith("tensor ") for name in run.described)
    others = len(run.described) - num_tensors
    size = sum(p.nbytes for p in run.models.base.parameters()) / 1e6
    return f"{num_tensors:,} tensors ({size:,.1f} MB) and {others:,} settings and functions are as they were loaded"


def _described_loading(base: PreTrainedModel) -> Description:
    """How a process would load the base again; the proof of unchanged text relies on it."""
    names = ("base", "architecture", "revision", "dtype", "attn_implementation", "trust_remote_code", "quantization")
    loading = loading_of(base)
    return {f"loaded: {name}": str(loading[name]) for name in names}


def _reload_frozen(run: Run, *, sharded: bool = True) -> None:
    recipe = run.recipe
    run.workflows.clear()
    del run.models  # first, so that there are never two
    run.models = load_models(recipe, _device(sharded=sharded))


def _finish(run: Run) -> None:
    """Write the trained workflows, and leave them where they can be evaluated."""
    if strategy_of(run.recipe) in ENGINES:
        _rebuild_workflows(run, sharded=_shards_base(run.recipe))
    final = run.output_dir / FINAL_FOLDER
    remove_leftovers(final)
    for name, (model, processor) in run.workflows.items():
        model.card = training_card(run.recipe, name, model, run.stages, run.sources)
        model.loaded_card = CardFiles.of(final / name)  # of an earlier run, which this one resumes
        with staged_folder(final / name) as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    if _shards_base(run.recipe) and _fits_one_gpu(run.models.base):
        _rebuild_workflows(run, sharded=False)


def _fits_one_gpu(base: torch.nn.Module) -> bool:
    """Whether this process's GPU, if it has one, has room for a base twice over: for it and what is inserted."""
    if not torch.cuda.is_available():
        return False
    torch.cuda.empty_cache()
    return 2 * sum(p.nbytes for p in base.parameters()) < torch.cuda.mem_get_info()[0]


def _rebuild_workflows(run: Run, *, sharded: bool) -> None:
    """Build each workflow from its last checkpoint, since an engine changed the one that it trained.

    Args:
        sharded: Whether the GPU may be too small for the whole, which is then built in the memory of the host.
    """
    if _shards_base(run.recipe):
        _reload_frozen(run, sharded=sharded)
    last = {stage.workflow: stage for stage in run.recipe.stages}
    for name, stage in last.items():
        model, processor = _build_workflow(run, stage)
        load_weights(model, run.stages[stage.name].checkpoint)
        run.workflows[name] = (model.eval(), processor)


def _build_workflow(run: Run, stage: StageConfig) -> tuple[AdaptkitForConditionalGeneration, AdaptkitProcessor]:
    model = run.build_stage_model(stage)
    processor = run.models.processor(stage.workflow)
    model.stop_at(processor.stop_settings(model.generation_config))
    return model, processor


def _run_stage(run: Run, stage: StageConfig, number: str, resume: str | None) -> None:
    model, processor = _build_workflow(run, stage)
    model.set_trainable(stage.train)
    media = _media(run, model, processor)
    sources = {name: run.sources[name] for name in stage.data}
    fitting = fitting_stage(run.models.base, stage, run.reporter)
    data = build_stage_data(run.recipe, fitting, sources, media, run.output_dir / BAD_SAMPLES_FILE, num_processes())
    bad = run.output_dir / BAD_SAMPLES_FILE
    validation = build_validation(run.recipe, fitting, run.measured, media, bad)
    if resume is not None:
        on_main_process(lambda: refuse_other_models(model, run.output_dir, stage, resume))
        on_main_process(data.conversations.strike_out_repaired)
    num_steps = stage.num_steps(len(data.sampler), num_processes())
    refuse_outdated(run.recipe, run.output_dir, stage, num_steps, resume)
    components = {size.name: size.num_parameters for size in describe_components(model)}
    run.reporter.stage(StageStart(stage, number, components, len(data.sampler), num_steps, num_processes()))
    # Where weights are sharded, sharding records them, for as long as the model lives
    with nullcontext() if _shards_base(run.recipe) else frozen_content(model):
        run.stages[stage.name] = train_stage(
            model,
            data.dataset,
            data.collator,
            stage,
            sampler=data.sampler,
            output_dir=run.output_dir / stage.name,
            resume=stage_resume(resume, stage),
            processor=processor,
            reporter=run.reporter,
            metrics_path=run.output_dir / METRICS_FILE,
            report_to=run.recipe.logging.report_to,
            strategy=strategy_of(run.recipe),
            steps_after=_steps_after(run, stage),
            identity=recipe_identity(run.recipe, stage, run.models.tokenizer, sources, run.held_out),
            validation=validation,
        )
    run.workflows[stage.workflow] = (model.eval(), processor)


def _media(run: Run, model: AdaptkitForConditionalGeneration, processor: AdaptkitProcessor) -> MediaStore:
    """What reads the media of a stage; modalities with cached features are encoded first."""
    _encode_beforehand(run, processor)
    media = MediaStore(processor, {name: run.cached[name] for name in processor.modalities if name in run.cached})
    examples = {name: cached.example for name, cached in media.cached.items()}
    model.features_given = {name: example for name, example in examples.items() if example is not None}
    return media


def fitting_stage(base: PreTrainedModel, stage: StageConfig, reporter: Reporter) -> StageConfig:
    """The stage with a `max_length` that the base has positions for; a change is reported."""
    positions = max_positions(base)
    if positions is None or stage.max_length <= positions:
        return stage
    reporter.message(
        f"stage {stage.name!r}: conversations are cut at {positions:,} positions, since the base has no more; "
        f"max_length is {stage.max_length:,}"
    )
    return stage.model_copy(update={"max_length": positions})


def _encode_beforehand(run: Run, processor: AdaptkitProcessor) -> None:
    """Encode every medium of the recipe's data once, for modalities whose recipe wants that."""
    for name, inputs in processor.modalities.items():
        encoder = run.models.encoders[name]
        if name in run.cached or not (run.recipe.modalities[name].cache_features and encoder.cacheable):
            continue
        encoder.to(_device(sharded=False) or run.models.base.device)
        with run.reporter.progress(f"encoding {name} inputs") as advance:
            sources = [*run.sources.values(), *(s for n, s in run.measured.items() if s is not run.sources[n])]
            run.cached[name] = cache_features(name, inputs, encoder, sources, advance)
        encoder.to(run.models.base.device)


def _steps_after(run: Run, stage: StageConfig) -> int:
    """Steps of later stages; packed ones count as without packing, since packs are not known before."""
    later = run.recipe.stages[run.recipe.stages.index(stage) + 1 :]
    unpacked = [other.model_copy(update={"packing": False}) for other in later]
    return sum(s.num_steps(stage_mixture(s, run.sources).epoch_size, num_processes()) for s in unpacked)


def _recipe_header() -> str:
    packages = sorted({component.package for component in get_plugin_manager().components()})
    return f"# Resolved by adaptkit {adaptkit.__version__}; plugins: {', '.join(packages)}\n"
