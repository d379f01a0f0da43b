"""Networks and losses, against numbers made by hand."""

from __future__ import annotations

import math
from functools import partial

import torch

from stages.train.losses import (
    bernoulli_misfit,
    hard_replay,
    head_mask,
    masked_cross_entropy,
    penalties,
    soft_replay,
    vae_losses,
)
from stages.train.networks import VAE, Top, parameter_count
from stages.train.seeds import generator


def test_vae_has_the_papers_parameters() -> None:
    """1,785,004 in the paper counts a classifier of 200 -> 8 that is never trained."""
    vae = parameter_count(VAE(4096, torch.Generator(), hidden=200, z=100))
    assert vae == 1_783_396
    assert vae + 8 * (200 + 1) == 1_785_004
    assert parameter_count(VAE(128, torch.Generator(), hidden=128)) + 1_290 == 105_966
    images = parameter_count(VAE(30_000, torch.Generator(), hidden=1600))
    assert images + 8 * (1600 + 1) == 101_649_308
    assert parameter_count(VAE(1024, torch.Generator(), hidden=400)) == 1_261_924


def test_dropout_acts_only_with_a_stream() -> None:
    top = Top(12, 4, generator(0, "top"))
    x = torch.rand(5, 12)
    assert torch.equal(top(x), top(x))
    dropped = top(x, generator(0, "dropout"))
    assert not torch.equal(dropped, top(x))
    assert torch.equal(dropped, top(x, generator(0, "dropout")))
    many = torch.stack([top(x, generator(k, "d")) for k in range(4000)]).mean(0)
    assert torch.allclose(many, top(x), atol=0.03)  # the mean is kept


def test_each_row_is_scored_on_its_own_head() -> None:
    """Two heads of two; by hand: softmax over the row's own pair only."""
    heads = head_mask([range(0, 2), range(2, 4)], 4, torch.device("cpu"))
    logits = torch.tensor([[1.0, 3.0, 9.0, 9.0], [9.0, 9.0, 0.0, 2.0]])
    targets, tasks = torch.tensor([0, 3]), torch.tensor([0, 1])
    loss = masked_cross_entropy(logits, targets, penalties(heads)[tasks])
    by_hand = (math.log(1 + math.e**2) + math.log(1 + math.e**-2)) / 2
    assert math.isclose(float(loss), by_hand, rel_tol=1e-6)


def test_hard_replay_by_hand() -> None:
    old = torch.tensor([[5.0, 1.0, 7.0, 0.0]])
    new = torch.tensor([[2.0, 0.0, 1.0, 1.0]])
    task_wise = hard_replay(new, old, range(0, 2), range(0, 2))
    assert math.isclose(float(task_wise), math.log(1 + math.e**-2), rel_tol=1e-6)
    second = hard_replay(new, old, range(2, 4), range(2, 4))
    assert math.isclose(float(second), math.log(2), rel_tol=1e-6)
    among_all = hard_replay(new, old, range(0, 2), range(0, 4))
    total = math.e**2 + 1 + 2 * math.e
    assert math.isclose(float(among_all), math.log(total) - 2, rel_tol=1e-6)


def test_soft_replay_by_hand() -> None:
    """tau = 2: targets softmax(z / 2), loss times 4; equal answers give 4 x entropy."""
    z = torch.tensor([[2.0, 0.0]])
    p = 1 / (1 + math.exp(-1))
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    loss = soft_replay(z, z, range(0, 2), range(0, 2), temperature=2.0)
    assert math.isclose(float(loss), 4 * entropy, rel_tol=1e-5)
    padded = soft_replay(
        torch.zeros(1, 4), torch.zeros(1, 4), range(0, 2), range(0, 4), temperature=1.0
    )
    assert math.isclose(float(padded), math.log(4), rel_tol=1e-6)


def test_vae_loss_by_hand() -> None:
    """All weights zero: the output is 0.5 everywhere, z's mean and log variance are 0."""
    vae = VAE(6, torch.Generator(), hidden=3, z=2)
    for parameter in vae.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]])
    assert math.isclose(vae_losses(vae, x, torch.Generator()).item(), math.log(2), rel_tol=1e-6)
    torch.nn.init.constant_(vae.mean.bias, 3.0)
    divergence = 0.5 * 2 * 9.0 / 6
    expected = math.log(2) + divergence
    assert math.isclose(vae_losses(vae, x, torch.Generator()).item(), expected, rel_tol=1e-6)


def test_the_misfit_is_torchs_binary_cross_entropy() -> None:
    """Values to rounding, extreme ones included; the gradient to the bit."""
    stream = generator(0, "misfit")
    x = torch.rand(6, 50, generator=stream)
    x[0, :2] = torch.tensor([0.0, 1.0])
    raws = [torch.randn(6, 50, generator=stream) * 30, torch.full((6, 50), 200.0)]
    for raw in (*raws, -raws[1]):
        mine, theirs = raw.clone().requires_grad_(), raw.clone().requires_grad_()
        found = bernoulli_misfit(mine, x)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            theirs, x, reduction="none"
        ).mean(1)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
        weights = torch.rand(6, generator=stream)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


def test_heads_at_once_are_heads_one_by_one() -> None:
    """Rows x heads of one width: the mean over heads."""
    stream = generator(0, "heads")
    new, old = torch.randn(2, 5, 6, generator=stream)
    heads = [range(0, 2), range(2, 4), range(4, 6)]
    for loss in (hard_replay, partial(soft_replay, temperature=2.0)):
        one_by_one = sum(loss(new, old, head, head) for head in heads) / 3
        at_once = loss(new.view(5, 3, 2), old.view(5, 3, 2), range(2), range(2))
        assert torch.allclose(at_once, torch.as_tensor(one_by_one))


def test_streams_are_independent_of_order() -> None:
    a = torch.rand(3, generator=generator(0, "a"))
    torch.rand(3, generator=generator(0, "b"))
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), a)
    assert not torch.equal(torch.rand(3, generator=generator(1, "a")), a)
