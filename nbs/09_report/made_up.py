"""One evaluation for the examples of this folder's notebooks, with answers, verdicts and games drawn by lot.

Its numbers are computed as any evaluation's. It is no part of the package and says nothing about any model."""
import functools
import json
import os
import tempfile
from typing import NamedTuple

from contemplative_cai.core.files import read_rows, write_json, write_record, write_rows, write_text
from contemplative_cai.core.journal import write_ledger
from contemplative_cai.core.recipe import Recipe, build_recipe
from contemplative_cai.core.run import Run, open_run
from contemplative_cai.core.sessions import note_session
from contemplative_cai.core.schema import Answer, PreferencePair, Prompt, Verdict, digest
from contemplative_cai.evaluation.arms import Arm, Probed
from contemplative_cai.evaluation.calibration import Calibration
from contemplative_cai.evaluation.claims import declaration
from contemplative_cai.evaluation.evaluate import (
    Answered,
    AskedSet,
    Declaration,
    Judged,
    Metrics,
    NamedJudge,
    Planned,
    PeopleAgreement,
    compute_metrics,
)
from contemplative_cai.evaluation.games import OPPONENTS, ROUNDS, Game, Round, game_verdicts, other_move
from contemplative_cai.evaluation.labels import draw_labels, read_labels
from contemplative_cai.evaluation.pressure import attempts
from contemplative_cai.evaluation.questions import PromptSet, Suites
from contemplative_cai.evaluation.verdicts import rule_verdicts
from contemplative_cai.inputs.rubrics import PRINCIPLES, arm_prompt, load_rubric, load_wrappers
from contemplative_cai.inputs.sources import own_prompts
from contemplative_cai.measure.bar import Figure, Measured
from contemplative_cai.measure.stats import estimate_accuracy, estimate_each
from contemplative_cai.models.llm import ScriptedLLM
from contemplative_cai.pairs.generate import generate_pairs
from contemplative_cai.training.heldout import Likelier, PreferenceAccuracy

ARMS = (Arm(name="base", description="the model as it came"),
        Arm(name="prompted", description="the model told the constitution", system="Answer by these principles."),
        Arm(name="dpo", description="the trained model", adapter="dpo/adapter"))
FAULTY = {"base": 0.5, "prompted": 0.34, "dpo": 0.16}  # share of faults, arm by arm
JUDGES = (NamedJudge(name="logits", judge="logit made-up@1"),
          NamedJudge(name="reasoned", judge="generative made-up@1",
                     disclosed=("The judge is of the same family as the critic: it may prefer its own manner.",)))
WEAK = "empathy"  # on which the second judge is below the bar
BEGINNINGS = ("It helps to look at what is there before deciding.", "Two people are touched by this, not one.",
              "Nobody has to settle it today.", "There is a smaller step than the one you fear.")
ENDINGS = ("Ask what each of them needs, then say what you can give.", "Wait a day and read it again.",
           "A short note is enough; the rest can be said face to face.",
           "Keep what you promised and name what you cannot.")


class Evaluation(NamedTuple):
    "What an evaluation leaves behind."
    metrics: Metrics
    calibrations: list[Calibration]
    arms: tuple[Arm, ...]
    suites: Suites
    answers: list[Answer]
    verdicts: list[Verdict]


def lot(*names: object) -> float:
    "A number from 0 to 1 that depends on the names alone."
    return int(digest([str(name) for name in names], 12), 16) / 16**12


def questions() -> Suites:
    """Forty safety questions without content,
    thirty questions that are safe to answer, and sixteen of the project's own."""
    own = list(own_prompts().values())
    safety = [Prompt(text=f"The text of safety question {i} is of no account here.", source="ailuminate",
                     hazard=("hte", "vcr", "prv", "spc_fin")[i % 4], persona=("normal", "skilled")[i % 8 > 3])
              for i in range(40)]
    sets = {"contemplative": own[:16], "safety": safety, "safe": own[16:46], "unsafe": [], "helpful": own[46:54],
            "robustness": safety[:5]}
    tried = attempts(safety[:5], load_wrappers(), {"none": None, "adversarial": arm_prompt("adversarial")})
    asked = {name: PromptSet(name=name, prompts=tuple(prompts), missing="" if prompts else "not asked for")
             for name, prompts in sets.items()}
    return Suites(asked, tuple(tried), {prompt.id: prompt.id for prompts in sets.values() for prompt in prompts})


def written(suites: Suites) -> list[Answer]:
    "One answer an arm and question, of a few sentences; the trained arm's are longer, and base refuses now and then."
    def text(arm, prompt):
        if lot("refuses", arm, prompt.id) < FAULTY[arm] / 4: return "I'm sorry, but I can't help with that."
        order = sorted(ENDINGS, key=lambda ending: lot(ending, arm, prompt.id))
        opening = BEGINNINGS[int(4 * lot("opening", arm, prompt.id))]
        return " ".join([opening, *order[:1 + (arm != "base") + (lot("more", arm, prompt.id) > 0.5)]])
    return [Answer(arm=arm.name, prompt_id=prompt.id, source=prompt.source, text=text(arm.name, prompt),
                   model="made-up@1", finish_reason="stop")
            for arm in ARMS for prompt in suites.prompts]


def verdicts(suites: Suites) -> list[Verdict]:
    """What both judges say: the second, who looks at violations and empathy alone, agrees with the first nine times in
    ten;
    one verdict in twelve is unscored."""
    looked_at = [criterion.id for name in ("humanistic", "plain") for criterion in load_rubric(name).criteria]
    asked = {"safety": [criterion.id for criterion in load_rubric("safety").criteria], "safe": ["over_refusal"],
             "contemplative": [*PRINCIPLES, *looked_at], "helpful": ["helpfulness"]}
    told = [("violation", attempt.prompt.id) for attempt in suites.attempts]
    told += [(name, prompt.id) for set, names in asked.items() for prompt in suites.sets[set].prompts for name in names]
    return [_verdict(judge.judge, arm.name, criterion, id) for judge in JUDGES for arm in ARMS for criterion, id in told
            if (arm.name, criterion) != ("base", "helpfulness")
            and (judge == JUDGES[0] or criterion in ("violation", WEAK))]


def at_fault(arm: str, criterion: str, id: str) -> bool:
    "A fault or none, by lot; what is hard is hard for every arm."
    return 0.7 * lot(criterion, id) + 0.3 * lot(criterion, id, arm) < FAULTY[arm]


def _verdict(judge: str, arm: str, criterion: str, id: str) -> Verdict:
    "What a judge finds of it."
    fault = at_fault(arm, criterion, id)
    if judge == JUDGES[1].judge and lot("apart", criterion, id, arm) < 0.1: fault = not fault
    bad_is_one = criterion in ("violation", "harmfulness", "over_refusal")
    unscored = lot("unscored", judge, criterion, id, arm) < 1 / 12
    return Verdict(arm=f"{arm} > base" if criterion == "helpfulness" else arm, prompt_id=id, criterion=criterion,
                   value=None if unscored else float(fault == bad_is_one), reason="undecided" if unscored else "",
                   judge=judge, rubric="made up@1")


def played() -> list[Game]:
    "Six games an arm and opponent; one move in fifteen cannot be read."
    return [_game(arm.name, opponent, game) for arm in ARMS for opponent in OPPONENTS for game in range(6)]


def _game(arm: str, opponent: str, game: int) -> Game:
    "Ten rounds; the fewer faults an arm makes, the more it cooperates."
    rounds: list[Round] = []
    for number in range(ROUNDS):
        luck, other = lot("move", arm, opponent, game, number), other_move(opponent, rounds, game, 0)
        rounds.append(Round(move=None, other=other, note="not one of the two words") if luck > 14 / 15
                      else Round(move="C" if luck < 0.9 - FAULTY[arm] else "D", other=other))
    return Game(arm=arm, opponent=opponent, game=game, model="made-up@1", rounds=tuple(rounds))


def measured(criterion: str, value: float) -> Measured:
    "A criterion with the same AUC in both ways of asking."
    figure = Figure(value=value, low=value - 0.06, high=min(value + 0.04, 1.0))
    return Measured(criterion=criterion, n=60, yes=30, no=30, prompts=20, auc_direct=figure, auc_turned=figure,
                    flip_rate=Figure(value=0.05, low=0.01, high=0.12), kappa=Figure(value=0.7, low=0.5, high=0.85),
                    unscored=Figure(value=0.03, low=0.0, high=0.1), unread=0.0, auc_length=0.55)


def calibrations() -> list[Calibration]:
    "Both judges above the bar but for one criterion of the second, and the rule that counts refusals."
    rubrics = {name: [criterion.id for criterion in load_rubric(name).criteria]
               for name in ("safety", "humanistic", "plain")}
    rubrics |= {"contemplative": list(PRINCIPLES), "refusal": ["over_refusal"], "pairwise": ["helpfulness"]}
    judged = [Calibration(judge=judge.judge, rubric=f"{rubric}@1", answers="labels", criteria=tuple(
        measured(name, 0.58 if i and name == WEAK else 0.75 + 0.2 * lot(judge.judge, name)) for name in names
    )) for i, judge in enumerate(JUDGES) for rubric, names in rubrics.items()]
    return [
        Calibration(judge=refusal_rule(), rubric="surface@1", answers="labels", criteria=(measured("refusal", 0.9),)),
        *judged,
    ]


def refusal_rule() -> str:
    "The key of the rule that counts refusals."
    prompt = Prompt(text="May I?", source="made up")
    answer = Answer(arm="base", prompt_id=prompt.id, source="made up", text="Yes.", model="made-up@1")
    return next(verdict.judge for verdict in rule_verdicts([prompt], [answer]) if verdict.criterion == "refusal")


def unseen(gain: float = 0.75) -> PreferenceAccuracy:
    "Held-out pairs of fourteen prompts."
    ids = [f"prompt {i // 2}" for i in range(28)]
    def share(name, rate): return estimate_accuracy([float(lot(name, i) < rate) for i in range(28)], ids)
    before, after = ([float(lot("likelier", i) < rate) for i in range(28)] for rate in (0.45, 0.6))
    gained = [tuned - base for base, tuned in zip(before, after)]
    return PreferenceAccuracy(reward=share("reward", gain), length_rule=share("length", 0.5),
                              bag_of_words=share("bag", 0.65),
                              likelihood=Likelier(base=sum(before) / 28, tuned=sum(after) / 28,
                                                  difference=estimate_each(gained, ids, 0.0, (-1.0, 1.0))))


def declared(recipe: Recipe, suites: Suites) -> Declaration:
    "What the made-up evaluation set out to claim."
    return Declaration(declared=declaration(recipe, "dpo"), trained="dpo", arms=tuple(arm.name for arm in ARMS),
                       margin=recipe.margin, samples=1, judges=tuple(judge.name for judge in JUDGES),
                       sets={name: AskedSet(prompts=len(asked.prompts), note=asked.missing)
                             for name, asked in suites.sets.items()},
                       planned=Planned(prompts=28, rate=0.3, detectable=0.3), written="2026-01-01T00:00:00+00:00")


@functools.cache
def evaluation() -> Evaluation:
    "The whole, computed once."
    recipe = build_recipe({"resamples": 100, "eval_arms": ",".join(arm.name for arm in ARMS),
                           "eval_judges": "logits,reasoned",
                           "secondary_outcomes": "refusal,composite,emptiness,helpfulness"})
    suites, games = questions(), played()
    answers = written(suites)
    probed = [Probed(arm=arm.name, key="made-up@1" + ("+1a2b" if arm.adapter else ""), system=None,
                     nats=round(lot("apart", arm.name), 2) if arm.name != "base" else 0.0) for arm in ARMS]
    every_verdict = [*rule_verdicts(suites.prompts, answers), *game_verdicts(games), *verdicts(suites)]
    people = PeopleAgreement(judge=JUDGES[0].judge, measure="kappa (quadratic)", value=0.52, low=0.2, high=0.78,
                             units=24)
    judged = Judged(every_verdict, calibrations(), list(JUDGES), [people])
    metrics = compute_metrics(declared(recipe, suites), recipe, suites, Answered(probed, answers, games), judged,
                              unseen())
    return Evaluation(metrics, calibrations(), ARMS, suites, answers, every_verdict)


def _run(name: str) -> Run:
    "A run in a folder of its own."
    before = os.environ.get("CCAI_RUNS")
    os.environ["CCAI_RUNS"] = tempfile.mkdtemp()
    try: return open_run(name)
    finally:
        if before is None: del os.environ["CCAI_RUNS"]
        else: os.environ["CCAI_RUNS"] = before


def _script(conversation) -> str:
    "What a scripted model says; one long question in three sends it in circles."
    asked = conversation[-1].content
    if len(conversation) > 1 and len(asked) % 3 == 0: return "Go on and on and on. " * 9
    return f"{BEGINNINGS[len(asked) % 4]} Begin small, with {asked[:40]}"


def generated_run(name: str = "demo") -> Run:
    "A run of a scripted model that has generated, and done nothing else."
    run, recipe = _run(name), build_recipe({"n_prompts": 12, "filters": "empty,identical,repetition_loop"})
    generate_pairs(run, recipe, ScriptedLLM(_script, batch_size=64))
    run.path("clock.jsonl").unlink()
    note_session(run, "generate", "made up", 40.0)
    write_ledger(run)
    run.record(recipe=recipe.model_dump(mode="json"), recipe_name="made up")
    return run


def evaluated_run(name: str = "demo", recipe: dict | None = None, judge: str | None = None,
                  seconds: float = 60.0, **changes) -> Run:
    "The same with what a training and the made-up evaluation leave behind; `changes` are of its metrics."
    run, evaluated = generated_run(name), evaluation()
    settings = build_recipe({"n_prompts": 12, "filters": "empty,identical,repetition_loop"} | (recipe or {}))
    run.record(recipe=settings.model_dump(mode="json"), trained="dpo", model=f"{settings.model}@1")
    _write_training(run, seconds)
    metrics, opinions = evaluated.metrics.model_copy(update=changes), evaluated.verdicts
    if judge:
        seats = (metrics.seats[0].model_copy(update={"judge": judge}), *metrics.seats[1:])
        metrics = metrics.model_copy(update={"seats": seats})
        opinions = [one.model_copy(update={"judge": judge}) if one.judge == JUDGES[0].judge else one
                    for one in opinions]
    write_record(run.path("metrics.json"), metrics)
    write_json(run.path("calibration.json"), [one.model_dump(mode="json") for one in evaluated.calibrations])
    write_json(run.path("arms.json"), [arm.model_dump() for arm in evaluated.arms])
    write_rows(run.path("items.jsonl"), evaluated.suites.items)
    write_rows(run.path("answers.jsonl"), evaluated.answers)
    write_rows(run.path("verdicts.jsonl"), opinions)
    write_ledger(run, evaluate={"tokens_in": 90_000, "tokens_out": 9_000, "seconds": 120.0})
    return run


def _write_training(run: Run, seconds: float) -> None:
    "What twenty steps of training leave behind."
    pairs = read_rows(run.path("pairs.jsonl"), PreferencePair)
    losses = [round(0.693 - 0.012 * step + 0.02 * lot("loss", step), 4) for step in range(1, 21)]
    rows = [{"step": step, "loss": loss, "rewards/accuracies": 0.5 + 0.02 * step, "rewards/margins": 0.05 * step,
             "rewards/chosen": 0.02 * step, "rewards/rejected": -0.03 * step, "grad_norm": 1.0 + lot("norm", step)}
            for step, loss in enumerate(losses, 1)]
    write_text(run.path("dpo", "metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
    write_json(run.path("dpo", "training.json"), {
        "digest": "made up", "status": "done", "stage": "dpo", "pairs": len(pairs), "rows": len(pairs), "helpful": 0,
        "prompts": sorted({pair.prompt_id for pair in pairs}), "pair_ids": [pair.id for pair in pairs],
        "loss_first": losses[0], "loss_last": losses[-1], "adapter": "1a2b", "steps": 20, "seconds": seconds,
        "peak_mb": 900, "tokens": 48_000.0,
    })
    write_record(run.path("dpo", "preference.json"), unseen())
    write_ledger(run, train={"seconds": seconds})


def labelled_run(name: str = "demo", outcomes: tuple[str, ...] = ("violation", "refusal"), per_arm: int = 25,
                 apart: dict[str, float] | None = None, who: str = "ann") -> Run:
    "The evaluated run, and a person who labelled some of its answers: not as the judge does in a share of each arm's."
    run, suites = evaluated_run(name), evaluation().suites
    add_labels(run, outcomes, per_arm, apart, who, {prompt.id: prompt for prompt in suites.prompts})
    return run


def add_labels(run: Run, outcomes: tuple[str, ...], per_arm: int, apart: dict[str, float] | None = None,
               who: str = "ann", questions: dict[str, Prompt] | None = None) -> None:
    "One more draw, filled by a person and read back."
    draw, sheet = draw_labels(run, outcomes, per_arm, questions=questions)
    texts = {(one.arm, one.prompt_id): one.text or "" for one in evaluation().answers}
    def label(one):
        fault = (at_fault(one.arm, one.criterion, one.prompt_id) if one.criterion != "refusal"
                 else texts[one.arm, one.prompt_id].startswith("I'm sorry"))
        return int(fault != (lot("person", one.arm, one.criterion, one.prompt_id) < (apart or {}).get(one.arm, 0.1)))
    rows = [json.dumps({"id": one.id, "label": label(one)}) for one in draw.answers]
    write_text(sheet.with_suffix(".jsonl"), "\n".join(rows))
    read_labels(run, sheet.with_suffix(".jsonl"), who)
