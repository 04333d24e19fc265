"""Products the machine's fast way: the same numbers, and never those of weights that have changed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contemplative_cai.models.attention import _ask, _ask_at_once, packed_attention, row_places, stepping_attention
from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.products import PackedWeight, packs, speed_products
from contemplative_cai.models.weights import load_model

IDS = torch.arange(40).reshape(2, 20)


@pytest.fixture
def model():
    return load_model(model_spec("random-tiny"), "float32", "cpu").eval()


def sped(model):
    speed_products(model)
    return model


@pytest.mark.skipif(not packs(torch.float32), reason="this processor's library has no packed weights")
@given(rows=st.integers(1, 300), inside=st.integers(1, 70), outside=st.integers(1, 90), bias=st.booleans(),
       seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_packed_product_is_the_product_for_any_shape(rows, inside, outside, bias, seed):
    torch.manual_seed(seed)
    layer, x = torch.nn.Linear(inside, outside, bias=bias), torch.randn(rows, inside)
    with torch.inference_mode():
        packed = PackedWeight(layer)
        assert packed.serves(x)
        assert torch.allclose(packed.product(x), layer(x), atol=1e-5)
        turned = torch.randn(inside, rows).t()  # not contiguous
        assert torch.allclose(packed.product(turned), layer(turned), atol=1e-5)


def test_scores_are_the_models_own(model):
    with torch.inference_mode():
        before = model(IDS).logits
        assert torch.allclose(sped(model)(IDS).logits, before, atol=1e-4)


@pytest.mark.parametrize("change", ["in place", "replaced", "loaded"])
def test_a_changed_weight_is_computed_with(model, change):
    changed = copy.deepcopy(model)
    sped(model)
    for one in (model, changed):
        layer = one.model.layers[0].mlp.gate_proj
        if change == "in place":
            with torch.no_grad(): layer.weight.mul_(-3)
        elif change == "replaced": layer.weight = torch.nn.Parameter(layer.weight.detach() * -3)
        else: one.load_state_dict({name: value * -3 if "gate_proj" in name else value
                                   for name, value in one.state_dict().items()})
    with torch.inference_mode():
        assert torch.allclose(model(IDS).logits, changed(IDS).logits, atol=1e-4)


def test_gradients_flow_as_before(model):
    plain = copy.deepcopy(model)
    for one in (sped(model), plain): one(IDS).logits.pow(2).mean().backward()
    name = "model.layers.0.mlp.gate_proj.weight"
    grads = [dict(one.named_parameters())[name].grad for one in (model, plain)]
    assert grads[0] is not None
    assert torch.allclose(*grads, atol=1e-6)


def test_an_adapter_is_never_skipped_and_off_it_leaves_the_base_as_it_is(model):
    from peft import LoraConfig, get_peft_model
    plain = copy.deepcopy(model)
    def adapted(one):
        torch.manual_seed(0)
        return get_peft_model(one, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    with torch.inference_mode(): bare = sped(model)(IDS).logits
    ours, theirs = adapted(model), adapted(plain)
    with torch.inference_mode():
        tuned = ours(IDS).logits
        assert torch.allclose(tuned, theirs(IDS).logits, atol=1e-4)
        assert not torch.allclose(tuned, bare, atol=1e-2)
        with ours.disable_adapter(): assert torch.equal(ours(IDS).logits, bare)


def masked(query, keys, values, scaling):
    "SDPA of the last positions of a row over all of it."
    length, total = query.shape[1], keys.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        query[None], keys[None], values[None], scale=scaling, enable_gqa=True,
        attn_mask=torch.ones(length, total, dtype=torch.bool).tril(total - length))[0]


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4), behind=st.integers(0, 40),
       groups=st.sampled_from([1, 2, 3]), heads=st.sampled_from([1, 2, 4]), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_attention_in_blocks_is_attention(lengths, behind, groups, heads, seed):
    torch.manual_seed(seed)
    total, width, scaling = sum(lengths), 8, 0.3
    query, key, value = (torch.randn(n, total, width) for n in (groups * heads, groups, groups))
    prefix = (torch.randn(groups, behind, width), torch.randn(groups, behind, width)) if behind else None
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = list(zip([0, *ends], ends))
    out = packed_attention(query, key, value, spans, row_places(spans, [0] * len(spans), "cpu"), scaling, prefix)
    for start, end in spans:
        keys, values = key[:, start:end], value[:, start:end]
        if prefix: keys, values = torch.cat([prefix[0], keys], 1), torch.cat([prefix[1], values], 1)
        assert torch.allclose(out[:, start:end], masked(query[:, start:end], keys, values, scaling), atol=1e-5)


@given(length=st.integers(1, 200), before=st.integers(0, 60), groups=st.integers(1, 3), heads=st.integers(1, 3),
       seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_block_by_block_and_at_once_are_the_same(length, before, groups, heads, seed):
    torch.manual_seed(seed)
    query = torch.randn(groups, heads, length, 8)
    keys, values = (torch.randn(groups, before + length, 8) for _ in range(2))
    asked = [torch.empty_like(query) for _ in range(2)]
    for ask, out in zip((_ask, _ask_at_once), asked): ask(query, keys, values, out)
    assert torch.allclose(*asked, atol=1e-5)


@given(rows=st.integers(1, 5), longest=st.integers(1, 40), behind=st.integers(0, 40), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_step_is_attention_of_one_position(rows, longest, behind, seed):
    torch.manual_seed(seed)
    groups, width, scaling = 2, 8, 0.3
    query = torch.randn(rows, 3 * groups, 1, width)
    key, value = (torch.randn(rows, groups, longest, width) for _ in range(2))
    prefix = (torch.randn(groups, behind, width), torch.randn(groups, behind, width)) if behind else None
    lengths = torch.randint(1, longest + 1, (rows,))
    mask = torch.where(torch.arange(longest)[None] < lengths[:, None], 0.0, float("-inf"))[:, None, None]
    out = stepping_attention(query, key.transpose(2, 3), value, mask, scaling, prefix)
    for row, length in enumerate(lengths.tolist()):
        keys, values = key[row, :, :length], value[row, :, :length]
        if prefix: keys, values = torch.cat([prefix[0], keys], 1), torch.cat([prefix[1], values], 1)
        assert torch.allclose(out[row], masked(query[row], keys, values, scaling), atol=1e-5)
