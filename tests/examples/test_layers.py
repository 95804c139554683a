"""Decoder layers beyond what the examples run by themselves, and the page about them."""

import sys

import numpy as np
import pytest
from layers_page import PAGE, ROOT, measured, tables

sys.path.insert(0, str(ROOT / "examples"))
import decoder_attention
import llama_layer
import moe_layer


def test_all_experts_are_read_where_the_tokens_select_more():
    """8 tokens select 16 experts of 8: the other path of moe_tkg, compared with numpy by the example."""
    (table,) = moe_layer.main(["--model", "gpt-oss-120b", "--phase", "decode", "--batch", "8"]).values()
    assert "| moe_tkg |" in table


def test_a_prompt_that_fills_no_tile():
    (table,) = llama_layer.main(["--model", "qwen3-8b", "--phase", "prefill", "--sequence", "300"]).values()
    assert "| split_heads |" in table


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--tp", "8"], "--tp cuts a model of its real sizes"),
        (["--no-data", "--model", "llama3-8b", "--tp", "4"], "tp is a multiple of its 8 heads"),
        (["--model", "llama2"], "invalid choice"),
    ],
)
def test_options_that_do_not_fit(arguments, words, capsys):
    with pytest.raises(SystemExit):
        llama_layer.main(arguments)
    assert words in capsys.readouterr().err


def test_a_wrong_result_is_told():
    expected = np.ones((2, 4), np.float32)
    with pytest.raises(AssertionError, match=r"differs from numpy by 0\.5"):
        decoder_attention.compare(expected * 1.5, expected)
    with pytest.raises(AssertionError, match="too much"):
        decoder_attention.compare(expected, np.full_like(expected, np.nan))


@pytest.mark.parametrize("tokens, experts, k, size", [(7, 4, 2, 4), (64, 8, 1, 16), (3, 16, 2, 256)])
def test_blocks_hold_each_token_once_for_each_of_its_experts(tokens, experts, k, size):
    rng = np.random.default_rng(tokens)
    index = np.argsort(rng.random((tokens, experts)), axis=1)[:, :k]
    ids, owners = moe_layer.blocks_of(index, experts, size)
    blocks = ids.reshape(-1, size)
    assert len(blocks) == len(owners) and len(owners) % 2 == 0
    found = sorted((token, owner) for block, owner in zip(blocks, owners) for token in block if token >= 0)
    assert found == sorted((token, expert) for token in range(tokens) for expert in index[token])


def test_the_worst_routing_fits():
    """One expert has nearly all tokens, each other one a single token."""
    index = np.zeros((40, 1), int)
    index[-7:, 0] = np.arange(1, 8)
    ids, _ = moe_layer.blocks_of(index, 8, 16)
    assert (ids >= 0).sum() == 40


def test_the_page_has_a_table_of_each_layer():
    models = [*llama_layer.MODELS, *moe_layer.MODELS]
    assert list(tables(PAGE.read_text())) == [(m, phase) for m in models for phase in ("prefill", "decode")]


@pytest.mark.slow
@pytest.mark.parametrize("example", ["llama_layer", "moe_layer"])
def test_the_tables_of_the_page_are_what_is_measured(example):
    assert measured(example, []).items() <= tables(PAGE.read_text()).items()
