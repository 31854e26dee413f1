"""Add XGrad-CAM (Fu et al., BMVC 2020); a recipe names the module in `plugins` and says `cam: {method: xgradcam}`."""

import timm
import torch

from ppl.cam import generate, gradient_method, register_method


def xgradcam(features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by the mean of its gradients, of which cells with large features count more."""
    shares = features / (features.sum(dim=(2, 3), keepdim=True) + 1e-7)
    return torch.einsum("nc,nchw->nhw", (gradients * shares).sum(dim=(2, 3)), features)


def main() -> None:
    classifier = timm.create_model("test_resnet", pretrained=False)
    (result,) = generate(classifier, torch.randn(1, 3, 64, 96), labels=[[3, 7]], method="xgradcam")
    print(f"maps {tuple(result.maps.shape)} of classes {result.classes.tolist()}")


register_method("xgradcam", gradient_method(xgradcam))

if __name__ == "__main__":
    main()
