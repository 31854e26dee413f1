from __future__ import annotations

import pytest
import torch

from ppl.segment.windows import averaged_logits, predicted_windows, window_starts


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20, 33])
@pytest.mark.parametrize(("window", "step"), [(8, 8), (8, 5), (4, 1)])
def test_windows_cover_an_axis_without_leaving_it(length, window, step):
    starts = window_starts(length, window, step)
    covered = {cell for start in starts for cell in range(start, min(start + window, length))}
    assert covered == set(range(length))
    assert starts == sorted(set(starts)) and (length <= window or starts[-1] + window == length)


@pytest.mark.parametrize("size", [(9, 31), (8, 8), (30, 5), (23, 17)])
def test_every_pixel_comes_from_the_window_whose_edges_are_farthest(size):
    window, step = 8, 5

    def network(x):  # the places of a pixel in its window
        height, width = x.shape[-2:]
        down, right = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
        return torch.stack([down, right])[None]

    found = torch.full((2, *size), -1)
    for (rows, columns), logits in predicted_windows(network, torch.zeros(3, *size), window, step):
        assert (found[:, rows, columns] == -1).all()  # no pixel comes twice
        found[:, rows, columns] = logits
    for axis, length in enumerate(size):
        starts = [start for start in range(length) if start in window_starts(length, window, step)]
        for place in range(length):
            here = found[axis].select(axis, place).unique().tolist()
            assert len(here) == 1

            def to_edge(start, place=place, length=length):
                return min(
                    place - start + 1 if start else 99, start + window - place if start + window < length else 99
                )

            best = max(to_edge(start) for start in starts if start <= place < start + window)
            assert to_edge(place - here[0]) == best


def test_windows_change_nothing_for_a_network_that_sees_no_farther_than_half_of_their_overlap():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1)).double()
    image = torch.randn(3, 41, 67, dtype=torch.float64)
    found = torch.zeros(2, 41, 67, dtype=torch.float64)
    with torch.no_grad():
        for (rows, columns), logits in predicted_windows(network, image, window=16, step=12):
            found[:, rows, columns] = logits
        torch.testing.assert_close(found, network(image[None])[0])


def test_parts_come_while_later_windows_are_not_read():
    seen = []

    def network(x):
        seen.append(x.shape)
        return x[:, :2]

    stream = predicted_windows(network, torch.zeros(3, 100, 8), window=8, step=8)
    assert next(stream)[1].shape == (2, 8, 8)
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
