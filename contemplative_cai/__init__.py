"""Contemplative constitutional AI: generate, review, train, evaluate.

A name below is imported when it is first used.
"""
__version__ = "0.1.0"

import os
from importlib import import_module

# trl and the hub's client tell the hub what is trained here, unless they are told not to; who wants that sets it to 0
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

HOMES = {  # what a notebook begins with, and the module that defines it
    "begin": "command.pipeline",
    "write_setup": "command.pipeline",
    "make_kernel": "cloud.place",
    "look": "report.look",
    "load_recipe": "core.recipe",
    "open_run": "core.run",
    "step": "core.run",
    "trained_folder": "core.run",
    "load_constitution": "inputs.constitution",
    "recipe_constitution": "inputs.constitution",
    "draw_prompts": "inputs.sources",
    "draw": "inputs.draw",
    "ScriptedLLM": "models.llm",
    "load_llm": "models.local",
    "ray_model": "revision.cluster",
    "watched": "pairs.waterfall",
    "load_pairs": "pairs.make",
    "apply_reviews": "review.votes",
    "plan_reviews": "review.plan",
    "plan_active": "review.active",
    "open_review": "review.session",
    "open_disputes": "review.raters",
    "review_widget": "review.widget",
    "generate_pairs": "pairs.generate",
    "try_loop": "pairs.generate",
    "write_dataset": "pairs.dataset",
    "panelled": "training.curves",
    "check_training": "training.train",
    "train": "training.train",
    "recipe_checker": "evaluation.pair_gate",
    "evaluate": "evaluation.evaluate",
    "check_capability": "capability.measured",
    "measure_abilities": "capability.measured",
    "write_report": "report.report",
    "write_card": "report.card",
    "rebuild": "report.rebuild",
    "compare_runs": "report.compare",
    "browse": "report.browse",
}
__all__ = ["__version__", *HOMES]


def __getattr__(name: str):
    "A name of `HOMES`, from the module that defines it; `look` is that module itself."
    if name not in HOMES:
        raise AttributeError(f"module 'contemplative_cai' has no attribute '{name}'; it offers {', '.join(HOMES)}")
    module = import_module(f"{__name__}.{HOMES[name]}")
    return module if HOMES[name].endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)


def __dir__() -> list[str]:
    "What is offered here."
    return sorted({*globals(), *HOMES})
