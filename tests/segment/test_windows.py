from __future__ import annotations

import pytest
import torch

from ppl.segment.windows import averaged_logits, window_starts, windowed_mask


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20, 33])
@pytest.mark.parametrize(("window", "step"), [(8, 8), (8, 5), (4, 1)])
def test_windows_cover_an_axis_without_leaving_it(length, window, step):
    starts = window_starts(length, window, step)
    covered = {cell for start in starts for cell in range(start, min(start + window, length))}
    assert covered == set(range(length))
    assert starts == sorted(set(starts)) and (length <= window or starts[-1] + window == length)


@pytest.mark.parametrize("size", [(9, 31), (8, 8), (30, 5), (23, 17)])
def test_overlapping_windows_are_averaged_as_a_brute_force_sum_says(size):
    torch.manual_seed(0)
    image = torch.randn(3, *size, dtype=torch.float64)
    window, step = 8, 5

    def network(x):  # depends on the place of a pixel in its window, so that overlaps matter
        return torch.cat([x[:, :1] * torch.arange(1, x.shape[-1] + 1), x[:, 1:2]], dim=1)

    total, count = torch.zeros(2, *size), torch.zeros(size)
    for top in window_starts(size[0], window, step):
        for left in window_starts(size[1], window, step):
            part = (slice(top, top + window), slice(left, left + window))
            total[:, part[0], part[1]] += network(image[None, :, part[0], part[1]])[0].float()
            count[part] += 1
    rows = torch.cat(list(windowed_mask(network, image, window, step)), dim=1)
    torch.testing.assert_close(rows, total / count)


def test_rows_are_finished_while_later_windows_are_not_read():
    seen = []

    def network(x):
        seen.append(x.shape)
        return x[:, :2]

    stream = windowed_mask(network, torch.zeros(3, 100, 8), window=8, step=8)
    assert next(stream).shape == (2, 8, 8)
    assert len(seen) == 1


def test_scales_and_mirror_images_are_averaged_on_logits():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 12, 10)

    def network(x):
        return x.cumsum(-1)[:, :2]

    parts = []
    for scale in (1.0, 0.5):
        size = [round(12 * scale), round(10 * scale)]
        x = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
        parts += [
            torch.nn.functional.interpolate(logits, (12, 10), mode="bilinear", align_corners=False)
            for logits in (network(x), network(x.flip(-1)).flip(-1))
        ]
    expected = torch.stack(parts).mean(0)
    torch.testing.assert_close(averaged_logits(network, images, (1.0, 0.5), flip=True), expected)
