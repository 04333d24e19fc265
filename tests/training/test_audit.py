"""What is audited before training is what TRL will train on."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contemplative_cai.core.schema import InputError, Message, PreferencePair
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.weights import load_tokenizer
from contemplative_cai.training.audit import (
    Encoded,
    audit_lengths,
    encode_pair,
    learnable,
    refuse_cuts,
    render_pair,
    template_faults,
)


def pair(prompt, chosen, rejected, system=None):
    said = dict(principle="mindfulness", prompt_id="p", locale="en_US", source="mine", critique="", constitution="c",
                model="m", seed=0, template="t")
    opening = (Message(role="system", content=system),) if system else ()
    return PreferencePair(prompt=(*opening, Message(role="user", content=prompt)),
                          chosen=(Message(role="assistant", content=chosen),),
                          rejected=(Message(role="assistant", content=rejected),), **said)


@pytest.fixture(scope="module")
def tokenizer(): return load_tokenizer(model_spec("random-tiny"))


PAIRS = [pair("How late is it?", "Look at the sun.", "Late."),
         pair("Why?", "Because the tide turns at six.", "Because."),
         pair("Who are you?", "A small model.", "Nobody.", system="Be brief.")]


def test_tokens_are_those_of_trl(tokenizer, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    from contemplative_cai.models.weights import model_source
    rows = Dataset.from_list([p.model_dump(mode="json", include={"prompt", "chosen", "rejected"}) for p in PAIRS])
    trainer = DPOTrainer(model=AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0]),
                         args=DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none",
                                        precompute_ref_log_probs=True),
                         train_dataset=rows, processing_class=tokenizer)
    for ours, theirs in zip([encode_pair(tokenizer, p) for p in PAIRS], trainer.train_dataset, strict=True):
        assert ((list(ours.prompt), list(ours.chosen), list(ours.rejected))
                == (theirs["prompt_ids"], theirs["chosen_ids"], theirs["rejected_ids"]))


def test_a_template_with_two_beginnings_no_end_or_another_prompt_is_found(tokenizer):
    import copy
    assert template_faults(tokenizer, {tokenizer.eos_token_id}, PAIRS[0]) == []
    twice, endless, other = (copy.deepcopy(tokenizer) for _ in range(3))
    twice.bos_token = "<|im_start|>"
    twice.chat_template = "<|im_start|>" + tokenizer.chat_template
    endless.chat_template = tokenizer.chat_template.replace("<|im_end|>\n", "\n")
    other.chat_template = (
        tokenizer.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\nWell: ", 1)
        if "add_generation_prompt" not in tokenizer.chat_template
        else (tokenizer.chat_template.rsplit("<|im_start|>assistant\n", 1)[0] + "<|im_start|>assistant\nWell: "
              + tokenizer.chat_template.rsplit("<|im_start|>assistant\n", 1)[1])
    )
    ends = {tokenizer.eos_token_id}
    assert "comes twice" in template_faults(twice, ends, PAIRS[0])[0]
    assert any("learn to stop" in fault for fault in template_faults(endless, ends, PAIRS[0]))
    assert any("rendered differently" in fault for fault in template_faults(other, ends, PAIRS[0]))


ids = st.lists(st.integers(0, 5), min_size=1, max_size=12).map(tuple)


@given(st.lists(st.tuples(ids, ids, ids), min_size=1, max_size=8), st.integers(1, 20))
def test_the_audit_counts_what_cutting_does(rows, max_length):
    encoded = [Encoded(pair_id=str(i), prompt=p, chosen=c, rejected=r) for i, (p, c, r) in enumerate(rows)]
    audit = audit_lengths(encoded, max_length)
    assert audit.filled + audit.identical == sum(not learnable(row, max_length) for row in encoded)
    for side in ("chosen", "rejected"):
        assert audit.cut[side] == pytest.approx(
            sum(len(row.prompt) + len(getattr(row, side)) > max_length for row in encoded) / len(encoded)
        )
        assert all((*row.prompt, *row.kept(side, max_length)) == (*row.prompt, *getattr(row, side))[:max_length]
                   for row in encoded if len(row.prompt) < max_length)


def test_cuts_above_the_limit_are_refused_and_can_be_allowed():
    audit = audit_lengths([Encoded(pair_id="a", prompt=(1,) * 5, chosen=(2,) * 20, rejected=(3,) * 4)] * 50, 16)
    with pytest.raises(
        InputError,
        match=r"max_length 16 cuts 100.0% of the chosen answers, allowed are 1.0%; raise max_length \(up to 25",
    ):
        refuse_cuts(audit, 0.01)
    refuse_cuts(audit, 1.0)


def test_a_pair_is_shown_escaped_and_covered_where_asked(tokenizer):
    row = encode_pair(tokenizer, pair("<b>bold?</b>", "<script>x</script> yes", "no"))
    shown = render_pair(tokenizer, row, 512)._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "<b>bold" not in shown
    covered = render_pair(tokenizer, row, 512, covered=True)
    assert "script" not in str(covered) and "bold" not in covered._repr_html_() and "<|im_end|>" in str(covered)
    assert "[cut]" in str(render_pair(tokenizer, row, len(row.prompt) + 2))
