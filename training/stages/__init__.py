"""The stages of MPM: align (text), spell, remember and pretrain (pivot captions), instruct
(questions)."""

from typing import Any

from training.recipe import StreamStageConfig
from training.stages.align import Align
from training.stages.base import Context, Stage
from training.stages.instruct import Instruct
from training.stages.pretrain import Pretrain
from training.stages.remember import Remember
from training.stages.spell import Spell
from training.stages.stream import StreamStage

_STAGES: dict[str, Any] = {
    "align": Align,
    "spell": Spell,
    "remember": Remember,
    "pretrain": Pretrain,
    "instruct": Instruct,
}


def open_stage(name: str, context: Context) -> Stage:
    """Return a stage of the context's recipe."""
    config = context.recipe.stages[name]
    if isinstance(config, StreamStageConfig):
        return StreamStage(context, config, name)
    stage: Stage = _STAGES[name](context, config)
    return stage
