"""The hierarchical memory: choice, moving averages, re-seeding, usage, several processes."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ppl_fast.models.hierarchical_memory import HierarchicalMemory
from ppl_fast.page.memory import recall


def memory(**options):
    torch.manual_seed(0)
    sizes = {"banks": 3, "prototypes": 4, "width": 6, "layers": 1, "hidden": 6}
    return HierarchicalMemory(5, **(sizes | options))


def poses(batch=7):
    return torch.rand(batch, 5, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


def nearest(tokens, codebook):
    return torch.cdist(tokens.movedim(1, 0), codebook).argmin(2).T  # (B, m)


@pytest.mark.parametrize("start", ["published", "balanced"])
def test_one_update_by_hand(start):
    m = memory(start=start, decay=0.8)
    before = {name: buffer.clone() for name, buffer in m.named_buffers()}
    tokens = m.encode(poses()).detach()
    chosen = nearest(tokens, before["codebook"])
    m(poses())
    for bank in range(3):
        counts = torch.stack([(chosen[:, bank] == j).sum() for j in range(4)])
        sums = torch.stack([tokens[chosen[:, bank] == j, bank].sum(0) for j in range(4)])
        sizes = 0.8 * before["sizes"][bank] + 0.2 * counts
        sizes = (sizes + 1e-5) / (sizes.sum() + 4e-5) * sizes.sum()
        torch.testing.assert_close(m.sizes[bank], sizes)
        torch.testing.assert_close(m.sums[bank], 0.8 * before["sums"][bank] + 0.2 * sums)
        torch.testing.assert_close(m.codebook[bank], m.sums[bank] / sizes[:, None])
        assert m.idle[bank].tolist() == [0 if count else 1 for count in counts]


def test_output_and_commitment_are_of_the_codebook_as_read():
    m = memory()
    codebook, tokens = m.codebook.clone(), m.encode(poses()).detach()
    values = codebook[torch.arange(3), nearest(tokens, codebook)]
    recalled, commitment = m(poses())
    torch.testing.assert_close(recalled, m.decode(values))
    torch.testing.assert_close(commitment, (tokens - values).square().mean())


def test_straight_through_gradient_reaches_the_encoder():
    m = memory()
    m(poses())[0].square().sum().backward()
    assert all(p.grad.any() for p in m.encoder[0].parameters())


def test_balanced_start_keeps_the_vectors_in_place():
    m = memory(start="balanced")
    before = m.codebook.clone()
    m(poses())
    idle = m.idle > 0
    assert idle.any()
    torch.testing.assert_close(m.codebook[idle], before[idle], rtol=1e-4, atol=1e-4)


def test_prior_is_the_decoded_mean():
    m = memory()
    torch.testing.assert_close(m.prior(), m.decode(m.codebook.mean(1)[None])[0].detach())


def test_poses_of_vectors_are_float32_under_autocast():
    held = memory()
    expected = held.prototype_poses(), recall(held, poses()).keypoints
    with torch.autocast("cpu", torch.bfloat16):
        found = held.prototype_poses(), recall(held, poses()).keypoints
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_reseeding_moves_idle_vectors_to_tokens():
    m = memory(start="balanced", reseed_after=3)
    with torch.no_grad():
        m.codebook[:, 1:] = 100.0  # far from every token
        m.sums[:, 1:] = 100.0
    for step in range(3):
        assert (m.codebook[:, 1:] > 50).all(), f"moved early, at step {step}"
        m(poses())
    tokens = m.encode(poses()).detach()
    for bank in range(3):
        for vector in m.codebook[bank, 1:]:
            assert (vector - tokens[:, bank]).norm(dim=1).min() < 1e-6
        assert len(m.codebook[bank, 1:].unique(dim=0)) == 3  # different tokens
    torch.testing.assert_close(m.sums / m.sizes[:, :, None], m.codebook)
    assert not m.idle[:, 1:].any()
    m(poses())
    assert (m.usage()[1] == 0).all()


def test_more_dead_vectors_than_tokens():
    m = memory(prototypes=9, start="balanced", reseed_after=1)
    m(poses(2))
    assert m.codebook.isfinite().all()


def test_without_reseeding_dead_vectors_stay():
    m = memory(start="balanced")
    with torch.no_grad():
        m.codebook[:, 1:] = 100.0
        m.sums[:, 1:] = 100.0
    for _ in range(50):
        m(poses())
    perplexity, dead = m.usage()
    assert dead.tolist() == [3, 3, 3]
    assert (perplexity < 1.2).all()


def test_usage_of_known_sizes():
    m = memory()
    m.sizes.copy_(torch.tensor([[1.0, 1, 1, 1], [2, 2, 0, 0], [5, 0, 0, 0]]))
    perplexity, dead = m.usage()
    torch.testing.assert_close(perplexity, torch.tensor([4.0, 2.0, 1.0]))
    assert dead.tolist() == [0, 2, 3]


def _half(rank, init, out):
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    m = memory(start="balanced", reseed_after=2)
    for _ in range(2):
        m(poses(8)[rank::2])
    torch.save(dict(m.named_buffers()), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    mp.spawn(_half, (f"file://{tmp_path}/init", str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    whole = memory(start="balanced")
    for _ in range(2):
        whole(poses(8))
    used = whole.idle == 0
    torch.testing.assert_close(ranks[0]["codebook"][used], whole.codebook[used])
