"""What several tests of capability ask."""
import pytest

from contemplative_cai.models.catalog import model_spec
from contemplative_cai.models.weights import model_source


@pytest.fixture(scope="session")
def adapter(tmp_path_factory):
    "A LoRA adapter that changes what the random model finds likely, saved by PEFT itself."
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_source(model_spec("random-tiny"))[0], dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False,
                                            task_type="CAUSAL_LM"))
    model.save_pretrained(folder := tmp_path_factory.mktemp("adapters") / "other")
    return folder
