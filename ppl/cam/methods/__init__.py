"""CAM methods: each turns what a classifier computes into maps; a new one is a function and a line here."""

from __future__ import annotations

from ppl.cam.methods.attention import attention_rollout
from ppl.cam.methods.class_activation import auto, cam, propagated_cam, sharpened_cam
from ppl.cam.methods.gradient import gradcam, gradcam_plus_plus, gradient_method, hirescam, layercam
from ppl.cam.methods.registry import METHODS, CamMethod, Reading, register_method

__all__ = ["METHODS", "CamMethod", "Reading", "gradient_method", "register_method"]

register_method("auto", auto)
register_method("cam", cam)
register_method("hirescam", gradient_method(hirescam))
register_method("gradcam", gradient_method(gradcam))
register_method("gradcam++", gradient_method(gradcam_plus_plus))
register_method("layercam", gradient_method(layercam))
register_method("sharpened_cam", sharpened_cam)
register_method("propagated_cam", propagated_cam)
register_method("attention_rollout", attention_rollout)
