"""Patch-learning classifiers: a backbone, its cuts and one fusion of the branches; settings and files of models."""

from __future__ import annotations

from ppl.models.checkpoint import load_model, save_model
from ppl.models.config import ModelConfig
from ppl.models.create_model import create_model
from ppl.models.export import export_onnx, export_torch
from ppl.models.ppl_net import PPLNet

__all__ = ["ModelConfig", "PPLNet", "create_model", "export_onnx", "export_torch", "load_model", "save_model"]
