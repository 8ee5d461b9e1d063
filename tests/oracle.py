"""The equations of momentum recurrent networks as a plain loop over time, in float64.

Written from the mathematics alone: nothing in here imports the package it is there to check, and
nothing in here is fast. Autograd differentiates it, so it gives gradients as well as values.

    a_t = W x_t + b_ih                 the drive
    d_t = rule(a_0 … a_t)              the momentum rule
    h_t = cell(U h_{t-1} + b_hh, d_t)  the recurrence

With the velocity in hidden space the rule acts on Ŵ x_t + b̂ in R^h, and U d_t enters the gates.
"""

# ruff: noqa: F722 — jaxtyping writes shapes as strings, which ruff takes for undefined names
from dataclasses import dataclass
from typing import NamedTuple

import torch
from beartype import beartype
from jaxtyping import Float64, Int64, jaxtyped
from torch import Tensor

checked = jaxtyped(typechecker=beartype)

# A coefficient: a number, or a tensor that broadcasts against (B, C).
Number = float | Float64[Tensor, "*channels"]


@dataclass(frozen=True)
class Rule:
    """A momentum rule by its numbers, in the symbols of the equations."""

    name: str  # none, heavy_ball, nesterov, restart, adam, rmsprop, qhm, aggmo, complex
    mu: Number = 0.0
    mu_2: Number = 0.0
    nu: Number = 0.0
    phi: Number = 0.0
    theta: Number = 0.0
    s: Number = 1.0
    beta: Number = 0.0
    eps: float = 1e-8
    period: int = 1
    velocity: str = "gate"


@dataclass(frozen=True)
class Cell:
    """A recurrence by its name: rnn, lstm or gru, and its variant."""

    name: str
    nonlinearity: str = "tanh"
    forget_gate: bool = True


class Weights(NamedTuple):
    """The matrices and biases of one layer in one direction; None where there is none."""

    W: Tensor
    U: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    W_hr: Tensor | None = None  # the projection of an LSTM
    b_modrelu: Tensor | None = None


class Memory(NamedTuple):
    """What a rule remembers: velocity and second moment (B, C), steps since they were zero (B,).

    In the place of the second moment aggmo has its second velocity, and complex its imaginary part.
    """

    v: Tensor
    m: Tensor
    k: Tensor


@checked
def zero_memory(B: int, C: int) -> Memory:
    zeros = torch.zeros(B, C, dtype=torch.float64)
    return Memory(zeros, zeros, torch.zeros(B, dtype=torch.int64))


@checked
def momentum_at(rule: Rule, k: Int64[Tensor, " B"]) -> Number:
    """μ_k, at step k = 0, 1, 2, … since the state was zero."""
    if rule.name in ("nesterov", "restart"):
        j = (k if rule.name == "nesterov" else k % rule.period).double()[:, None]
        return j / (j + 3)
    return 0.0 if rule.name == "rmsprop" else rule.mu


@checked
def rule_step(rule: Rule, a: Float64[Tensor, "B C"], memory: Memory) -> tuple[Float64[Tensor, "B C"], Memory]:
    """From the drive a_t to d_t."""
    if rule.name == "none":
        return a, memory
    if rule.name == "qhm":
        v = rule.mu * memory.v + (1 - rule.mu) * a
        return rule.s * ((1 - rule.nu) * a + rule.nu * v), Memory(v, memory.m, memory.k + 1)
    if rule.name == "aggmo":
        v, v_2 = rule.mu * memory.v + a, rule.mu_2 * memory.m + a
        return rule.s / 2 * (v + v_2), Memory(v, v_2, memory.k + 1)
    if rule.name == "complex":
        phi, theta = (torch.as_tensor(angle, dtype=torch.float64) for angle in (rule.phi, rule.theta))
        v = rule.mu * (torch.cos(phi) * memory.v - torch.sin(phi) * memory.m) + a
        i = rule.mu * (torch.sin(phi) * memory.v + torch.cos(phi) * memory.m)
        return rule.s * (torch.cos(theta) * v - torch.sin(theta) * i), Memory(v, i, memory.k + 1)
    v = momentum_at(rule, memory.k) * memory.v + rule.s * a
    m = rule.beta * memory.m + (1 - rule.beta) * a**2
    d = v / torch.sqrt(m + rule.eps**2) if rule.name in ("adam", "rmsprop") else v
    return d, Memory(v, m, memory.k + 1)


@checked
def run_rule(
    rule: Rule, drive: Float64[Tensor, "T B C"], memory: Memory | None = None
) -> tuple[Float64[Tensor, "T B C"], Memory]:
    """Over all steps, from a given memory or from zero."""
    memory = zero_memory(*drive.shape[1:]) if memory is None else memory
    gate_input = []
    for a in drive:
        d, memory = rule_step(rule, a, memory)
        gate_input.append(d)
    return torch.stack(gate_input), memory


@checked
def cell_step(
    cell: Cell,
    weights: Weights,
    d: Float64[Tensor, "B gates"],
    h: Float64[Tensor, "B out"],
    c: Float64[Tensor, "B h"],
) -> tuple[Float64[Tensor, "B out"], Float64[Tensor, "B h"]]:
    """From h_{t-1}, c_{t-1} and what enters the gates to h_t, c_t; without an LSTM c stays as it is."""
    u = h @ weights.U.T
    if weights.b_hh is not None:
        u = u + weights.b_hh

    if cell.name == "rnn":
        x = u + d
        if cell.nonlinearity == "modrelu":
            return torch.sign(x) * torch.relu(torch.abs(x) + weights.b_modrelu), c
        return (torch.tanh(x) if cell.nonlinearity == "tanh" else torch.relu(x)), c

    if cell.name == "gru":
        u_r, u_z, u_n = u.chunk(3, dim=-1)
        d_r, d_z, d_n = d.chunk(3, dim=-1)
        r, z = torch.sigmoid(u_r + d_r), torch.sigmoid(u_z + d_z)
        n = torch.tanh(d_n + r * u_n)
        return (1 - z) * n + z * h, c

    if cell.forget_gate:
        i, f, g, o = (u + d).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    else:
        i, g, o = (u + d).chunk(3, dim=-1)
        c = c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if weights.W_hr is None else h @ weights.W_hr.T), c


@checked
def run(
    cell: Cell,
    rule: Rule,
    weights: Weights,
    x: Float64[Tensor, "T B d"],
    h: Float64[Tensor, "B out"] | None = None,
    c: Float64[Tensor, "B h"] | None = None,
    memory: Memory | None = None,
) -> tuple[Float64[Tensor, "T B out"], Float64[Tensor, "B out"], Float64[Tensor, "B h"], Memory]:
    """One layer in one direction: outputs, then the final h, c and the rule's memory."""
    B, hidden = x.shape[1], weights.U.shape[1] if weights.W_hr is None else weights.W_hr.shape[1]
    h = x.new_zeros(B, weights.U.shape[1]) if h is None else h
    c = x.new_zeros(B, hidden) if c is None else c
    memory = zero_memory(B, weights.W.shape[0]) if memory is None else memory

    outputs = []
    for x_t in x:
        a = x_t @ weights.W.T
        if weights.b_ih is not None:
            a = a + weights.b_ih
        d, memory = rule_step(rule, a, memory)
        if rule.velocity == "hidden":
            d = d @ weights.U.T
        h, c = cell_step(cell, weights, d, h, c)
        outputs.append(h)
    return torch.stack(outputs), h, c, memory


class Direction(NamedTuple):
    """One direction of one stacked layer: what it computes with, and the state it starts from."""

    rule: Rule
    weights: Weights
    h: Tensor | None = None
    c: Tensor | None = None
    memory: Memory | None = None


@checked
def run_stack(
    cell: Cell, layers: list[list[Direction]], x: Float64[Tensor, "T B d"]
) -> tuple[Float64[Tensor, "T B D_out"], Float64[Tensor, "LD B out"], Float64[Tensor, "LD B h"], Memory]:
    """Stacked layers of one or two directions, each reading the whole output of the layer below."""
    states = []
    for directions in layers:
        outputs = []
        for number, (rule, weights, *initial) in enumerate(directions):
            backward = number == 1
            y, *state = run(cell, rule, weights, x.flip(0) if backward else x, *initial)
            outputs.append(y.flip(0) if backward else y)
            states.append(state)
        x = torch.cat(outputs, dim=-1)
    h, c, memories = zip(*states, strict=True)
    memory = Memory(*(torch.stack(part) for part in zip(*memories, strict=True)))
    return x, torch.stack(h), torch.stack(c), memory
