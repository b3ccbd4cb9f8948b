"""Reveal: what the model looked at."""

from rightreasons.attribution.baselines import Baseline, BlurredBaseline, ConstantBaseline, UniformBaseline
from rightreasons.attribution.cam import (
    CAM,
    AblationCAM,
    AcrossLayers,
    ClassActivationMap,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from rightreasons.attribution.gradient import (
    ExpectedGradients,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)
from rightreasons.attribution.lrp import LRP, DeepTaylor
from rightreasons.attribution.modified_gradient import DeconvNet, GuidedBackprop
from rightreasons.attribution.perturbation import (
    LIME,
    RISE,
    FeatureAblation,
    KernelSHAP,
    MeaningfulPerturbation,
    Occlusion,
)
from rightreasons.attribution.score import Score
from rightreasons.attribution.shapley import ChainedSHAP, DeepLIFT, DeepSHAP, GradientSHAP
from rightreasons.attribution.smoothed import Smoothed
from rightreasons.attribution.transformer import AttentionRollout, CheferRelevance
from rightreasons.core import Attribution, Catalogue

ATTRIBUTIONS: Catalogue[Attribution] = Catalogue(
    "attribution",
    saliency=Saliency,
    input_x_gradient=InputXGradient,
    smooth_grad=SmoothGrad,
    integrated_gradients=IntegratedGradients,
    expected_gradients=ExpectedGradients,
    gradient_shap=GradientSHAP,
    deep_lift=DeepLIFT,
    deep_shap=DeepSHAP,
    smoothed=Smoothed,
    guided_backprop=GuidedBackprop,
    deconv_net=DeconvNet,
    lrp=LRP,
    deep_taylor=DeepTaylor,
    grad_cam=GradCAM,
    grad_cam_plus_plus=GradCAMPlusPlus,
    cam=CAM,
    x_grad_cam=XGradCAM,
    layer_cam=LayerCAM,
    hi_res_cam=HiResCAM,
    eigen_cam=EigenCAM,
    score_cam=ScoreCAM,
    ablation_cam=AblationCAM,
    attention_rollout=AttentionRollout,
    chefer_relevance=CheferRelevance,
    occlusion=Occlusion,
    feature_ablation=FeatureAblation,
    rise=RISE,
    lime=LIME,
    kernel_shap=KernelSHAP,
    meaningful_perturbation=MeaningfulPerturbation,
)

__all__ = [
    "ATTRIBUTIONS",
    "CAM",
    "LIME",
    "LRP",
    "RISE",
    "AblationCAM",
    "AcrossLayers",
    "AttentionRollout",
    "Baseline",
    "BlurredBaseline",
    "ChainedSHAP",
    "CheferRelevance",
    "ClassActivationMap",
    "ConstantBaseline",
    "DeconvNet",
    "DeepLIFT",
    "DeepSHAP",
    "DeepTaylor",
    "EigenCAM",
    "ExpectedGradients",
    "FeatureAblation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientSHAP",
    "GuidedBackprop",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LayerCAM",
    "MeaningfulPerturbation",
    "Occlusion",
    "Saliency",
    "Score",
    "ScoreCAM",
    "SmoothGrad",
    "Smoothed",
    "UniformBaseline",
    "XGradCAM",
]
