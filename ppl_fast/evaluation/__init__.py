"""Evaluation protocols; every result carries its protocol as text, to be printed with the number.

Detected keypoints are xy in [-1, 1], labelled joints xy in [0, 1] (`unit_joints` brings labels there from pixels);
errors are fractions of the image size. Only `matching` needs scipy, only running a model needs tqdm.
"""

from ppl_fast.evaluation._calibration import calibrate
from ppl_fast.evaluation._error import regression_error
from ppl_fast.evaluation._evaluate import evaluate_model, side_by_side
from ppl_fast.evaluation._labelled import labelled_split, unit_joints
from ppl_fast.evaluation._limbs import limb_share
from ppl_fast.evaluation._matching import matching
from ppl_fast.evaluation._occlusion import MASKS, check_masks, occlude, occlusion, visible_pixels
from ppl_fast.evaluation._pck import pck
from ppl_fast.evaluation._regression import RegressionMap, fit_mean_pose, fit_regression, mean_pose, regression
from ppl_fast.evaluation._ridge import fit_ridge, ridge, ridge_maps, ridge_slopes
from ppl_fast.evaluation._score import Score, joint_errors, mean_over
from ppl_fast.evaluation._subject import subject_share
from ppl_fast.inference import predict

__all__ = [
    "MASKS",
    "RegressionMap",
    "Score",
    "calibrate",
    "check_masks",
    "evaluate_model",
    "fit_mean_pose",
    "fit_regression",
    "fit_ridge",
    "joint_errors",
    "labelled_split",
    "limb_share",
    "matching",
    "mean_over",
    "mean_pose",
    "occlude",
    "occlusion",
    "pck",
    "predict",
    "regression",
    "regression_error",
    "ridge",
    "ridge_maps",
    "ridge_slopes",
    "side_by_side",
    "subject_share",
    "unit_joints",
    "visible_pixels",
]
