"""Samplers: laws of the draws, what they keep out of, and agreement with plain loops over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from wsolpipe.contract.errors import ConfigError
from wsolpipe.maps.foreground import otsu_threshold
from wsoltrain.data.views import places_of
from wsoltrain.pseudo.draws import chosen_region, components, describe_missing, erode, extreme, otsu, uniform
from wsoltrain.pseudo.samplers import (
    _BG,
    _BOX,
    _FG,
    BACKGROUND,
    FOREGROUND,
    IGNORE,
    Dips,
    ErodedRegion,
    OnPatches,
    OtsuRegion,
    Patches,
    Pseudo,
    ReleasedDips,
    draw_in_boxes,
)

H, W = 20, 24


def pseudo(batch=4, seed=0, n_maps=3, n_boxes=4, size=(H, W)):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    maps = torch.rand(batch, n_maps, *size, generator=generator)
    corner = torch.rand(batch, n_boxes, 2, generator=generator) * torch.tensor([width * 0.6, height * 0.6])
    side = 2 + torch.rand(batch, n_boxes, 2, generator=generator) * torch.tensor([width * 0.3, height * 0.3])
    boxes = torch.cat([corner, corner + side], 2)
    box_map = torch.randint(0, n_maps, (batch, n_boxes), generator=generator)
    return Pseudo(maps, torch.arange(batch) + 100 * seed, boxes, box_map)


def pick(values, order_keys, candidates, count):
    """Plain: indices of the `count` candidates with the smallest keys."""
    del values
    return sorted(candidates, key=lambda index: (order_keys[index], index))[:count]


def dips_of_one_image(rule, given, number, seed, epoch):
    """The DiPS sampler in plain loops over one image, on the same random numbers."""
    rows = given.rows[number : number + 1]
    boxes, maps = given.boxes[number].tolist(), given.maps[number].flatten(1)
    height, width = given.maps.shape[-2:]
    there = [slot for slot, (x0, y0, x1, y1) in enumerate(boxes) if x1 > x0 and y1 > y0][: rule.top_n]
    labels = np.full(height * width, IGNORE)
    if not there:
        return labels.reshape(height, width)
    draws = uniform(seed, epoch, rows, _BOX, len(boxes))[0]
    slot = max(there, key=lambda index: float(draws[index]))
    values = maps[given.box_map[number, slot]].numpy()
    x0, y0, x1, y1 = boxes[slot]
    inside, outside = [], []
    for index in range(height * width):
        y, x = divmod(index, width)
        if x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1:
            inside.append(index)
        chosen_from = [boxes[slot] for slot in there]
        if not any(x + 1 > b[0] and x < b[2] and y + 1 > b[1] and y < b[3] for b in chosen_from):
            outside.append(index)
    n_plus = max(1, int(np.float32(rule.fg_share) * np.float32(len(inside))))  # the authors' code takes int() of it
    n_minus = max(1, int(np.float32(rule.bg_share) * np.float32(height * width)))
    fg = sorted(inside, key=lambda index: (-values[index], index))[:n_plus]
    bg = sorted(outside, key=lambda index: (values[index], index))[:n_minus]
    n_fg, n_bg = min(rule.n_fg, len(fg)), min(rule.n_bg, len(bg))
    if rule.balanced:
        n_fg = n_bg = min(n_fg, n_bg)
    clocks = [-uniform(seed, epoch, rows, purpose, height * width)[0].log() for purpose in (_FG, _BG)]
    if rule.weighted:
        clocks[0] = clocks[0] / (torch.from_numpy(values) + 1e-8)
    labels[pick(values, clocks[0].numpy(), fg, n_fg)] = FOREGROUND
    labels[pick(values, clocks[1].numpy(), bg, n_bg)] = BACKGROUND
    return labels.reshape(height, width)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 40),
    shares=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    top_n=st.integers(1, 5),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_dips_equals_plain_loops_on_the_same_draws(seed, n, shares, top_n, flags):
    given_ = pseudo(seed=seed)
    given_.boxes[0, 1] = 0  # lost
    given_.boxes[3] = 0  # none at all
    rule = Dips(
        n_fg=n, n_bg=n, fg_share=shares[0], bg_share=shares[1], top_n=top_n, weighted=flags[0], balanced=flags[1]
    )
    drawn = rule(given_, seed=seed, epoch=3)
    for number in range(4):
        expected = dips_of_one_image(rule, given_, number, seed, 3)
        np.testing.assert_array_equal(drawn.labels[number].numpy(), expected)
    assert int(drawn.counts["no_region"]) == 1


def many_draws(rule, maps, boxes, draws, box_map=None):
    """One image drawn under as many row numbers."""
    given_ = Pseudo(
        maps.expand(draws, *maps.shape[-3:]),
        torch.arange(draws),
        None if boxes is None else boxes.expand(draws, *boxes.shape[-2:]),
        torch.zeros(draws, boxes.shape[-2], dtype=torch.int64) if boxes is not None else box_map,
    )
    return rule(given_, seed=5, epoch=0).labels


def test_foreground_is_drawn_in_proportion_to_activation():
    maps = torch.linspace(0.1, 1, 36).view(1, 1, 6, 6)
    labels = many_draws(Dips(fg_share=1.0), maps, torch.tensor([[[0.0, 0.0, 6.0, 3.0]]]), 20_000)
    seen = (labels == FOREGROUND).sum(0).flatten()[:18].numpy()
    expected = maps.flatten()[:18].numpy().astype(float)
    assert seen.sum() == 20_000
    assert stats.chisquare(seen, expected / expected.sum() * 20_000).pvalue > 0.001


def test_background_is_drawn_uniformly_among_the_lowest():
    maps = torch.linspace(1, 0, 36).view(1, 1, 6, 6)
    rule = Dips(fg_share=1.0, bg_share=0.25)
    labels = many_draws(rule, maps, torch.tensor([[[0.0, 0.0, 6.0, 3.0]]]), 20_000)
    seen = (labels == BACKGROUND).sum(0).flatten().numpy()
    assert seen[:27].sum() == 0
    assert stats.chisquare(seen[27:]).pvalue > 0.001


def test_drawing_several_follows_torch_multinomial():
    weight = torch.tensor([0.1, 0.2, 0.5, 1.0, 0.7, 0.3])
    rule = Dips(n_fg=3, n_bg=3, fg_share=1.0, bg_share=1.0)
    maps = torch.cat([weight.view(1, 6), torch.zeros(1, 6)]).view(1, 1, 2, 6)
    labels = many_draws(rule, maps, torch.tensor([[[0.0, 0.0, 6.0, 1.0]]]), 20_000)
    ours = (labels[:, 0] == FOREGROUND).sum(0).numpy()
    drawn = torch.multinomial(weight.expand(20_000, 6), 3, generator=torch.Generator().manual_seed(0))
    theirs = torch.bincount(drawn.flatten(), minlength=6).numpy()
    assert stats.chi2_contingency(np.stack([ours, theirs])).pvalue > 0.001


def test_every_box_of_the_first_ones_is_equally_likely_and_the_others_never():
    boxes = torch.tensor([[[x, 0.0, x + 1, 4.0] for x in range(6)]])
    boxes[0, 2] = 0  # a lost slot does not use up a rank
    labels = many_draws(Dips(fg_share=1.0, top_n=3), torch.ones(1, 1, 4, 8), boxes, 6000)
    seen = (labels == FOREGROUND).sum((0, 1)).numpy()
    assert list(np.flatnonzero(seen)) == [0, 1, 3]
    assert stats.chisquare(seen[[0, 1, 3]]).pvalue > 0.001


@pytest.mark.parametrize("dilation", [1, 3])
def test_no_background_inside_any_box_of_the_set_in_ten_thousand_draws(dilation):
    rule = Dips(n_fg=20, n_bg=20, bg_share=1.0, top_n=3, dilation=dilation)
    drawn = 0
    for epoch in range(100):
        given_ = pseudo(batch=100, seed=epoch)
        labels = rule(given_, seed=0, epoch=epoch).labels
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        b = given_.boxes[:, :3, :, None, None]
        inside = ((x + 1 > b[:, :, 0]) & (x < b[:, :, 2]) & (y + 1 > b[:, :, 1]) & (y < b[:, :, 3])).any(1)
        assert not ((labels == BACKGROUND) & inside).any()
        drawn += len(labels)
    assert drawn == 10_000


def test_background_keeps_out_of_the_boxes_that_foreground_may_come_from_and_of_no_other():
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [6.0, 0.0, 10.0, 4.0], [0.0, 4.0, 10.0, 10.0]]])
    for top_n, free in ((1, {1, 2}), (2, {2}), (3, set())):
        rule = Dips(n_fg=50, n_bg=50, fg_share=1.0, bg_share=1.0, top_n=top_n, balanced=False)
        drawn = (many_draws(rule, torch.rand(1, 1, 10, 10), boxes, 200) == BACKGROUND).any(0)
        hit = {n for n, (x0, y0, x1, y1) in enumerate(boxes[0].int().tolist()) if drawn[y0:y1, x0:x1].any()}
        assert hit == free


def test_sides_stay_balanced_when_one_runs_short():
    boxes = torch.tensor([[[0.0, 0.0, 3.0, 2.0]]])  # six pixels
    labels = many_draws(Dips(n_fg=50, n_bg=50, fg_share=1.0, bg_share=1.0), torch.rand(1, 1, 10, 10), boxes, 8)
    assert ((labels == FOREGROUND).sum((1, 2)) == 6).all()
    assert ((labels == BACKGROUND).sum((1, 2)) == 6).all()
    loose = many_draws(
        Dips(n_fg=50, n_bg=50, fg_share=1.0, bg_share=1.0, balanced=False), torch.rand(1, 1, 10, 10), boxes, 8
    )
    assert ((loose == BACKGROUND).sum((1, 2)) == 50).all()


def test_empty_sets_are_counted_and_leave_no_labels():
    given_ = pseudo(batch=3)
    given_.boxes[0] = 0  # proposals of zero area
    given_.boxes[1, 0] = torch.tensor([0.0, 0.0, W, H])  # nothing lies outside
    given_.boxes[2] = 0
    given_.boxes[2, 0] = torch.tensor([0.1, 0.1, 0.3, 0.3])  # no pixel centre lies inside
    drawn = Dips()(given_, seed=0, epoch=0)
    assert {name: int(value) for name, value in drawn.counts.items()} == {
        "unlabelled": 3,
        "no_region": 2,
        "no_foreground": 0,
        "no_background": 1,
        "short": 1,
    }
    assert (drawn.labels == IGNORE).all()


def test_draws_are_fresh_in_each_epoch_and_the_same_for_a_row_in_any_batch():
    given_ = pseudo(batch=6)
    rule = Dips(n_fg=5, n_bg=5)
    first, second = rule(given_, seed=0, epoch=0).labels, rule(given_, seed=0, epoch=1).labels
    assert (first != second).flatten(1).any(1).all()
    part = Pseudo(given_.maps[4:], given_.rows[4:], given_.boxes[4:], given_.box_map[4:])
    assert torch.equal(rule(part, seed=0, epoch=0).labels, first[4:])


@pytest.mark.parametrize("flip", range(4))
def test_labels_drawn_once_stay_on_the_same_pixels_of_the_image_in_every_epoch_and_crop(flip):
    """Every pixel is a candidate of both sides here, so that a crop changes no candidate that it shows."""
    rule = OtsuRegion(n_fg=400, n_bg=400, fg_share=1, bg_share=1, region="none", weighted=False, balanced=False,
                      draw="once")  # fmt: skip
    rows, side, size = torch.arange(3) + 7, 24, 20
    maps = torch.rand(3, 1, side, side)
    first = {}
    for epoch, (left, top) in enumerate([(0, 0), (4, 0), (2, 3)]):
        window = torch.tensor([[left, top, side, flip]]).expand(3, 4)
        places = places_of(window, size)
        numbers = rule.noise(Pseudo(maps, rows, places=places), _FG, size * size, seed=1, epoch=epoch)
        for row, down, across in np.ndindex(3, size, size):
            x = left + (size - 1 - across if flip & 1 else across)
            y = top + (size - 1 - down if flip & 2 else down)
            number = numbers[row, down * size + across].item()
            assert first.setdefault((row, y, x), number) == number
    still = pseudo(batch=6)
    for rule in (Dips(n_fg=5, n_bg=5, draw="once"), ErodedRegion(n_fg=5, n_bg=5, draw="once")):
        drawn = [rule(still, seed=0, epoch=epoch).labels for epoch in (0, 1, 9)]
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], drawn[2])
        assert torch.equal(drawn[0], type(rule)(n_fg=5, n_bg=5)(still, seed=0, epoch=0).labels)
        assert not torch.equal(drawn[0], rule(still, seed=1, epoch=0).labels)
    patches = pseudo(size=(32, 32))
    once = [OnPatches(side=8, n=3, draw="once")(patches, seed=0, epoch=epoch).labels for epoch in (0, 5)]
    assert torch.equal(*once)
    own = [draw_in_boxes(still, Dips(n_fg=5, n_bg=5, draw="once"), seed=0, epoch=epoch).labels for epoch in (0, 5)]
    assert torch.equal(*own)


def test_uniform_numbers_are_uniform_and_independent_of_their_neighbours():
    numbers = uniform(3, 1, torch.arange(200), 1, 500).numpy()
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.001
    for other in (np.roll(numbers, 1, 0), np.roll(numbers, 1, 1), uniform(4, 1, torch.arange(200), 1, 500).numpy()):
        assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.01


def test_released_background_may_lie_in_boxes():
    maps = torch.linspace(0, 1, 36).view(1, 1, 6, 6)
    rule = Dips(background="anywhere", bg_share=0.1)
    labels = many_draws(rule, maps, torch.tensor([[[0.0, 0.0, 6.0, 6.0]]]), 50)
    assert ((labels == BACKGROUND).sum((1, 2)) == 1).all()


def test_dips_without_boxes_says_so():
    with pytest.raises(ConfigError, match="needs boxes"):
        Dips()(Pseudo(torch.rand(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64)), seed=0, epoch=0)


def test_otsu_agrees_with_the_pipeline_on_any_map():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(50, 9, 11, generator=generator) ** torch.linspace(0.2, 6, 50)[:, None, None]
    levels, thresholds = otsu(maps)
    expected = [otsu_threshold(level.numpy().astype(np.uint8)) for level in levels]
    assert thresholds.tolist() == expected
    assert otsu(torch.full((1, 4, 4), 0.3))[1].tolist() == [-1]


def test_components_agree_with_scipy_on_winding_regions():
    rng = np.random.default_rng(0)
    masks = rng.random((20, 31, 27)) < rng.uniform(0.3, 0.7, (20, 1, 1))
    labels = components(torch.from_numpy(masks)).numpy()
    for mask, ours in zip(masks, labels, strict=True):
        theirs, count = ndimage.label(mask)
        pairs = {(a, b) for a, b in zip(ours[mask], theirs[mask], strict=True)}
        assert len(pairs) == count == len({a for a, _ in pairs})
        assert not ours[~mask].any()


@pytest.mark.parametrize("densest", [True, False])
def test_the_compiled_pass_chooses_what_tensors_choose(densest):
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(30, 23, 17, generator=generator)
    mask = torch.rand(30, 23, 17, generator=generator) > torch.linspace(0.2, 0.7, 30)[:, None, None]
    found = chosen_region(mask, maps, densest=densest, least_share=0.05)
    for region, values, one in zip(mask.numpy(), maps.numpy(), found.numpy(), strict=True):
        labels, count = ndimage.label(region)
        areas = ndimage.sum_labels(region, labels, range(1, count + 1))
        means = ndimage.mean(values, labels, range(1, count + 1))
        best = int(means.argmax()) if densest and areas[means.argmax()] >= 0.05 * region.size else int(areas.argmax())
        assert areas[best] == one.sum()
        assert densest or one.sum() == areas.max()
        assert not densest or areas[means.argmax()] < 0.05 * region.size or (one == (labels == best + 1)).all()


@pytest.mark.parametrize("largest", [True, False])
def test_the_extremes_of_a_mask_are_those_of_a_stable_sort(largest):
    generator = torch.Generator().manual_seed(2)
    ties = torch.rand(20, 301, generator=generator).round(decimals=1)
    values = torch.cat([torch.randn(20, 301, generator=generator), ties])
    values[3, :7], values[4, :7] = 0.0, -0.0
    among = torch.rand(40, 301, generator=generator) > 0.4
    count = torch.randint(0, 303, (40,), generator=generator)
    ranked = (-values if largest else values).masked_fill(~among, torch.inf).sort(dim=1, stable=True).indices
    first = torch.arange(301) < count[:, None]
    expected = torch.zeros_like(among).scatter_(1, ranked, first) & among
    assert torch.equal(extreme(values, among, count, largest=largest), expected)


def test_region_modes_choose_what_they_say():
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 1:9, 1:9] = True  # the largest
    mask[0, 12:17, 12:17] = True  # the densest
    mask[0, 18, 1] = True  # denser still, but a speck
    maps = torch.full((1, 20, 20), 0.5)
    maps[0, 12:17, 12:17], maps[0, 18, 1] = 0.9, 1.0
    largest = chosen_region(mask, maps, densest=False, least_share=0.05)
    assert int(largest.sum()) == 64
    assert int(chosen_region(mask, maps, densest=True, least_share=0.05).sum()) == 64  # the speck gives way
    maps[0, 18, 1] = 0.5
    assert int(chosen_region(mask, maps, densest=True, least_share=0.05).sum()) == 25
    assert not chosen_region(torch.zeros_like(mask), maps, densest=True, least_share=0.05).any()


def blob(size=40):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.exp(-((x - 15.0) ** 2 + (y - 20.0) ** 2) / 60)[None, None]


@pytest.mark.parametrize("region", ["all", "densest", "largest"])
def test_trcam_foreground_lies_in_the_region_and_background_does_not(region):
    maps = blob()
    labels = many_draws(OtsuRegion(n_fg=30, n_bg=30, region=region), maps, None, 20)
    above = (maps[0, 0] * 255).floor() > float(otsu(maps[0])[1])
    assert ((labels == FOREGROUND).sum((1, 2)) == 30).all()
    assert ((labels == FOREGROUND).any(0) & ~above).sum() == 0
    assert ((labels == BACKGROUND).any(0) & above).sum() == 0


@pytest.mark.parametrize("region", ["all", "densest", "largest"])
def test_a_map_of_two_values_gives_labels_of_both_sides(region):
    maps = torch.zeros(1, 1, 20, 20)
    maps[..., 5:12, 4:14] = 1.0
    labels = many_draws(OtsuRegion(n_fg=20, n_bg=20, region=region), maps, None, 10)
    assert ((labels == FOREGROUND).sum((1, 2)) == 20).all()
    assert ((labels == BACKGROUND).sum((1, 2)) == 20).all()
    assert (maps[0].expand(10, -1, -1)[labels == FOREGROUND] == 1).all()
    assert (maps[0].expand(10, -1, -1)[labels == BACKGROUND] == 0).all()
    loose = many_draws(OtsuRegion(n_fg=20, n_bg=20, region=region, strict=False), maps, None, 2)  # as the released code
    assert (loose == IGNORE).all()


@pytest.mark.parametrize(("share", "pixels"), [(0.05, 30), (0.5, 7), (0.938, 49), (0.01, 12)])
def test_candidates_are_as_many_as_the_released_code_counts(share, pixels):
    maps = torch.rand(1, 1, 1, 2 * pixels, generator=torch.Generator().manual_seed(2))
    box = torch.tensor([[[0.0, 0.0, float(pixels), 1.0]]])
    for sides, of, label in (((10**4, 0), pixels, FOREGROUND), ((0, 10**4), 2 * pixels, BACKGROUND)):
        rule = Dips(n_fg=sides[0], n_bg=sides[1], fg_share=share, bg_share=share, balanced=False, background="anywhere")
        drawn = many_draws(rule, maps, box, 1) == label
        assert int(drawn.sum()) == max(1, int(share * of))


def test_eroded_sampler_stays_five_pixels_away_from_the_edge_of_the_region():
    maps = blob()
    labels = many_draws(ErodedRegion(n_fg=10, n_bg=10, dilation=1), maps, None, 50)
    above = (maps[0, 0] * 255).floor() > float(otsu(maps[0])[1])
    core = ndimage.binary_erosion(above.numpy(), np.ones((11, 11)), border_value=1)
    np.testing.assert_array_equal(erode(above[None], 11)[0].numpy(), core)
    drawn = (labels == FOREGROUND).any(0).numpy()
    assert drawn.any()
    assert not (drawn & ~core).any()


def test_an_erosion_that_would_leave_nothing_keeps_the_region():
    """As in the reference implementation of F-CAM: a small object still gives foreground."""
    maps = torch.zeros(1, 1, 40, 40)
    maps[..., 10:15, 20:26] = 1.0
    drawn = ErodedRegion(n_fg=10, n_bg=10, dilation=1)(Pseudo(maps, torch.arange(1)), seed=0, epoch=0)
    assert int((drawn.labels == FOREGROUND).sum()) == 10
    assert (maps[:, 0][drawn.labels == FOREGROUND] == 1).all()


def test_eroded_sampler_grows_each_pixel_to_a_square_of_three():
    maps = blob()
    alone = many_draws(ErodedRegion(dilation=1), maps, None, 50)
    grown = many_draws(ErodedRegion(), maps, None, 50)
    for one, nine in zip(alone, grown, strict=True):
        for side in (FOREGROUND, BACKGROUND):
            square = ndimage.binary_dilation((one == side).numpy(), np.ones((3, 3)))
            np.testing.assert_array_equal((nine == side).numpy(), square)


def test_patch_sampler_draws_equal_counts_apart():
    labels = many_draws(Patches(n_fg=6, n_bg=6), blob(14), None, 40)
    assert ((labels == FOREGROUND).sum((1, 2)) == (labels == BACKGROUND).sum((1, 2))).all()
    assert not ((labels == FOREGROUND).any(0) & (labels == BACKGROUND).any(0)).any()


def test_patches_are_labelled_whole_on_maps_of_pixels():
    maps = torch.rand(3, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    labels = OnPatches(n=2, side=8)(Pseudo(maps, torch.arange(3)), seed=0, epoch=0).labels
    cells = labels.view(3, 2, 8, 3, 8).permute(0, 1, 3, 2, 4).flatten(3)
    assert (cells == cells[..., :1]).all()
    assert ((cells[..., 0] == FOREGROUND).sum((1, 2)) > 0).all()
    with pytest.raises(ConfigError, match="does not divide"):
        OnPatches(side=7)(Pseudo(maps, torch.arange(3)), seed=0, epoch=0)


def test_released_sampler_draws_more_of_one_side_than_of_the_other():
    maps = torch.rand(1, 2, 40, 40, generator=torch.Generator().manual_seed(1))
    given = Pseudo(
        maps, torch.arange(1), torch.tensor([[[8.0, 8.0, 32.0, 32.0]]]), torch.zeros(1, 1, dtype=torch.int64)
    )
    labels = ReleasedDips(n_fg=60, n_bg=20, dilation=1)(given, seed=0, epoch=0).labels
    drawn = int((labels == FOREGROUND).sum()), int((labels == BACKGROUND).sum())
    assert drawn[0] > 2 * drawn[1] > 0


def test_released_sampler_reads_the_map_of_its_box():
    maps = torch.zeros(1, 2, 10, 10)
    maps[0, 0, 2, 2], maps[0, 1, 7, 7] = 1.0, 1.0
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
    for slot, place in ((0, (2, 2)), (1, (7, 7))):
        given_ = Pseudo(maps, torch.arange(1), boxes, torch.tensor([[slot]]))
        labels = ReleasedDips(n_fg=1, n_bg=1, fg_share=0.01, dilation=1)(given_, seed=0, epoch=0).labels
        assert labels[0][place] == FOREGROUND


def test_constant_map_gives_no_labels_and_is_counted():
    drawn = OtsuRegion()(Pseudo(torch.full((2, 1, 8, 8), 0.4), torch.arange(2)), seed=0, epoch=0)
    assert (drawn.labels == IGNORE).all()
    assert int(drawn.counts["no_region"]) == 2


def test_missing_labels_are_reported_with_their_reason_from_a_twentieth_of_the_images_on():
    assert describe_missing({"count unlabelled": 5, "count no_region": 5}, 100) is None
    found = describe_missing({"count unlabelled": 8, "count no_region": 1, "count no_background": 7}, 100)
    assert "8 of 100 images (8%) gave no labels" in found
    assert "pixels.keep_out=false" in found
    assert "pixels.dilation=1" in describe_missing({"count unlabelled": 8}, 100)
