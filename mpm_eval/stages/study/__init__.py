"""Studies: families of checkpoints, trained and measured to answer one question."""

from mpm_eval.stages.study.definition import Study, list_studies, load_study
from mpm_eval.stages.study.folders import STUDIES, Folders
from mpm_eval.stages.study.plan import Timings, describe_plan, plan_study
from mpm_eval.stages.study.run import run_study
from mpm_eval.stages.study.write import write_study

__all__ = [
    "STUDIES",
    "Folders",
    "Study",
    "Timings",
    "describe_plan",
    "list_studies",
    "load_study",
    "plan_study",
    "run_study",
    "write_study",
]
