"""The arms of the study, one line for each."""

from __future__ import annotations

import losses  # noqa: F401 - registers the auxiliary losses of some arms
from cell import Arm

THREE = ("front", "group3", "group4")
"""After MobileNetV2's groups 2, 3 and 4: strides 8, 16 and 16."""

VOC_THREE = ("front", "group4", "group5")
"""Cuts as on the page of results on PASCAL VOC: strides 8, 16 and 16."""

ARMS = {
    "baseline": Arm(),
    "control": Arm("control"),
    # a classifier as fast as the four of explicit patch learning together
    "baseline_head40": Arm(head_lr_mult=40),
    "control_head40": Arm("control", head_lr_mult=40),
    "progressive_head40": Arm("progressive", cuts=THREE, head_lr_mult=40),
    # one cut each
    "patch_front": Arm("progressive", cuts=("front",)),
    "patch_group3": Arm("progressive", cuts=("group3",)),
    "patch_group4": Arm("progressive", cuts=("group4",)),
    "patch_group5": Arm("progressive", cuts=("group5",)),
    # the paper's two
    "progressive": Arm("progressive", cuts=THREE),
    "explicit": Arm("explicit", cuts=THREE),
    # the paper's two at the default cuts
    "progressive_default": Arm("progressive", cuts=VOC_THREE),
    "progressive_default_zeros": Arm("progressive", cuts=VOC_THREE, padding="zeros"),
    "explicit_default": Arm("explicit", cuts=VOC_THREE),
    # one cut after stride 8, with losses that make patches answer for themselves
    "front_puzzle": Arm("progressive", cuts=("front",), auxiliary={"branches": 1.0, "puzzle": 4.0}, auxiliary_ramp=0.5),
    "front_erased": Arm("progressive", cuts=("front",), auxiliary={"erased": 1.0}),
    "front_erased_4x4": Arm("progressive", cuts=("front",), grids=4, auxiliary={"erased": 1.0}),
    "front_patches_4x4": Arm("progressive", cuts=("front",), grids=4, auxiliary={"patches": 1.0}),
    # further losses and poolings
    "progressive_consistency": Arm("progressive", cuts=THREE, auxiliary={"branches": 1.0, "consistency": 0.5}),
    "progressive_patches": Arm("progressive", cuts=THREE, auxiliary={"patches": {"weight": 1.0, "sharpness": 1.0}}),
    "progressive_lse": Arm("progressive", cuts=THREE, pooling="log_sum_exp:1"),
    "baseline_lse": Arm(pooling="log_sum_exp:1"),
    "baseline_gm3": Arm(pooling="generalised_mean:3"),
    "baseline_every_patch": Arm(auxiliary={"every_patch": {"weight": 0.3}}),
    # nGWP
    "baseline_ngwp": Arm(pooling="ngwp"),
    "control_ngwp": Arm("control", pooling="ngwp"),
    "progressive_ngwp": Arm("progressive", cuts=THREE, pooling="ngwp"),
    "explicit_ngwp": Arm("explicit", cuts=THREE, pooling="ngwp"),
    "patch_front_ngwp": Arm("progressive", cuts=("front",), pooling="ngwp"),
    "patch_group3_ngwp": Arm("progressive", cuts=("group3",), pooling="ngwp"),
    "patch_group4_ngwp": Arm("progressive", cuts=("group4",), pooling="ngwp"),
    "patch_group5_ngwp": Arm("progressive", cuts=("group5",), pooling="ngwp"),
    # nGWP and other ways through the same three cuts
    "progressive_ngwp_zeros": Arm("progressive", cuts=THREE, pooling="ngwp", padding="zeros"),
    "progressive_ngwp_3x3": Arm("progressive", cuts=THREE, pooling="ngwp", grids=3),
    "progressive_ngwp_4x4": Arm("progressive", cuts=THREE, pooling="ngwp", grids=4),
    "progressive_ngwp_coarse_to_fine": Arm("progressive", cuts=THREE, pooling="ngwp", grids=(2, 3, 4)),
    "progressive_ngwp_fine_to_coarse": Arm("progressive", cuts=THREE, pooling="ngwp", grids=(4, 3, 2)),
    "progressive_ngwp_reversed": Arm("progressive", cuts=THREE[::-1], pooling="ngwp"),
    "alternate_ngwp": Arm("progressive", cuts=THREE, pooling="ngwp", schedule="alternate"),
    "within_batch_ngwp": Arm("progressive", cuts=THREE, pooling="ngwp", schedule="within_batch"),
    "progressive_ngwp_warmup": Arm("progressive", cuts=THREE, pooling="ngwp", warmup=1),
    # nGWP with other powers and further losses
    "progressive_ngwp1": Arm("progressive", cuts=THREE, pooling="ngwp:1"),
    "progressive_ngwp6": Arm("progressive", cuts=THREE, pooling="ngwp:6"),
    "progressive_ngwp_branches": Arm("progressive", cuts=THREE, pooling="ngwp", auxiliary={"branches": 1.0}),
    "progressive_ngwp_consistency": Arm(
        "progressive",
        cuts=THREE,
        pooling="ngwp",
        auxiliary={"branches": 1.0, "consistency": 0.5},
        auxiliary_ramp=0.5,
    ),
}
