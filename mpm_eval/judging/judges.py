"""Judges by spec; `open_judge` is the only door. Each is imported when it is asked for."""

from mpm_eval.endpoint import Patience
from mpm_eval.errors import unknown
from mpm_eval.judging.budget import Budget
from mpm_eval.judging.protocol import Judge

JUDGES = {
    "openai": "openai:BASE_URL#MODEL, any OpenAI-compatible endpoint",
    "hf": "hf:FOLDER or hf:ID@REVISION, a local language model",
    "embedded": "embedded, nearness to the reference; no language model, no network",
}


def open_judge(spec: str, patience: Patience | None = None, budget: Budget | None = None) -> Judge:
    """Return the judge that `spec` names; raises UserError for an unknown or incomplete spec."""
    kind, _, argument = spec.partition(":")
    if kind == "openai":
        from mpm_eval.judging.openai import open_openai

        return open_openai(argument, patience or Patience(), budget or Budget())
    if kind == "hf":
        from mpm_eval.judging.huggingface import open_huggingface

        return open_huggingface(argument)
    if spec in ("embedded", "embedded:similarity"):
        from mpm_eval.judging.embedded import EmbeddedJudge

        return EmbeddedJudge()
    raise unknown("judge", kind if kind != "embedded" else spec, JUDGES, "--judge")
