import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from c2s_rl.data.prompt_set import read_prompts
from tests.benchmarks.workload import BASE, CORPUS, END_LOGIT, TINY, Shape, write_workload

SHAPE = Shape(prompt_tokens=100, completion_tokens=8, group_size=4, num_prompts=3, model=TINY)


def test_prompts_are_real_cells_of_the_wanted_length_and_end_tokens_are_out_of_reach(tmp_path):
    write_workload(tmp_path, SHAPE)
    prompts = read_prompts(tmp_path / CORPUS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / BASE)
    assert len(prompts) == 3
    for record in prompts.records:
        assert len(tokenizer.encode(record.prompt)) == 100
        assert all(prompts.vocabulary.index_of(word) is not None for word in record.prompt.split())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / BASE)
    ids = torch.tensor([tokenizer.encode(prompts.records[0].prompt)])
    with torch.no_grad():
        logits_L_V = model(ids).logits[0]
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    # the final norm's unit 0 is 1 whatever the prompt, and the end tokens read nothing else
    torch.testing.assert_close(logits_L_V[:, ends], torch.full((100, 2), END_LOGIT))
    others = [i for i in range(TINY.vocabulary_size) if i not in ends]
    assert logits_L_V[:, others].min() > -20
