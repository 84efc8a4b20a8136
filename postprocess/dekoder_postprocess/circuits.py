# SPDX-License-Identifier: Apache-2.0
"""Attention maps of a run as BertViz and CircuitsVis take them.

    from dekoder_postprocess.attention_reader import read_attention
    from dekoder_postprocess.circuits import bertviz_input, circuitsvis_input

    probe = read_attention("runs/quickstart").probe()

    attention, tokens = bertviz_input(probe)
    bertviz.head_view([torch.from_numpy(layer) for layer in attention], tokens)

    attention, tokens = circuitsvis_input(probe, layer=0)
    circuitsvis.attention.attention_heads(tokens=tokens, attention=attention)
"""
from __future__ import annotations

import numpy as np

from .visible_text import visible_token


def bertviz_input(probe, step=None):
    """(attention, tokens) for BertViz's head_view and model_view: a list with one float32 array (1, head, query, key)
    per captured layer, and one string per token with white space visible. step: a captured one, the last where None.
    Raises RunError for a step that is not captured."""
    weights = _weights(probe, step)
    return [np.ascontiguousarray(layer[np.newaxis]) for layer in weights], _tokens(probe)


def circuitsvis_input(probe, layer=0, step=None):
    """(attention, tokens) for CircuitsVis' attention_heads: a float32 array (head, query, key)
    of one layer, and one string per token with white space visible. layer: position on the maps' first axis, which is
    the model's layer where all are captured. Raises RunError for a step that is not captured,
    IndexError for a layer."""
    return np.ascontiguousarray(_weights(probe, step)[layer]), _tokens(probe)


def _weights(probe, step):
    return probe.weights(probe.steps[-1] if step is None and probe.steps else step).astype(np.float32)


def _tokens(probe):
    return [visible_token(text) for text in probe.token_text]
