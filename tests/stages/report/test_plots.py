"""The plots: inline SVG that takes its colours from the page, with the numbers beneath."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mpm_eval.stages.report.gather import Gathered, gather
from mpm_eval.stages.report.plots import plots
from mpm_eval.stages.result_schema import Result, load_result
from mpm_eval.stages.score import score_run
from tests.stages.conftest import MakeRun, MakeTask


def with_result(gathered: Gathered, result: Result) -> Gathered:
    run = gathered.runs[0]
    side = replace(run.tasks["animals"], result=result)
    return replace(gathered, runs=(replace(run, tasks={"animals": side}),))


def test_retention_and_main_scores_are_drawn_with_their_numbers(scored_run: Path) -> None:
    retention, main = plots(gather([scored_run]))
    assert retention.title == "Transfer retention"
    assert [row[1] for row in retention.rows] == ["German", "Chinese"]
    assert main.title == "exact_match by language"
    german = next(row for row in main.rows if row[1] == "German")
    assert german[:4] == ("animals", "German", "m", "87.5")
    assert german[6:] == ("8", "0")
    texts = "".join(ElementTree.fromstring(main.svg).itertext())
    for word in ("animals", "English", "Chinese", "German", "exact_match by language"):
        assert word in texts


def test_layers_are_drawn_as_curves_above_the_floor(scored_run: Path) -> None:
    gathered = gather([scored_run])
    result = load_result(scored_run / "animals" / "result.json")
    probed = []
    for metric in ("retrieval_p1", "retrieval_floor"):
        for layer in (0, 10, 2):
            made = replace(
                result.scores[0], metric=metric, language="de", subset=f"layer={layer}",
                value=float(layer), ci95=(layer - 1.0, layer + 1.0),
            )  # fmt: skip
            probed.append(made)
    found = plots(with_result(gathered, replace(result, scores=tuple(probed))))
    assert [plot.title for plot in found] == ["Alignment by layer: retrieval_p1"]
    assert [row[1] for row in found[0].rows] == ["0", "2", "10"]
    assert "Dashed: the floor" in found[0].caption


def test_without_scores_there_is_no_plot(scored_run: Path) -> None:
    result = load_result(scored_run / "animals" / "result.json")
    gathered = with_result(gather([scored_run]), replace(result, scores=()))
    assert plots(gathered) == []


@pytest.mark.parametrize("name", ["$x_{1}$ <b>&", "a\x00b\ufffe\x1b\u202ec", "العربية", "猫", "क्‍ष"])
def test_any_name_is_drawn_as_it_is(
    make_task: MakeTask, make_run: MakeRun, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    run = make_run(make_task(), model={"name": name, "spec": "m", "sha256": "", "identity": {}})
    score_run(run)
    gathered = gather([run])
    second = replace(gathered.runs[0], name="second")
    main = plots(replace(gathered, runs=(gathered.runs[0], second)))[1]
    texts = "".join(ElementTree.fromstring(main.svg).itertext())
    assert "".join("\ufffd" if c in "\x00\ufffe\x1b\u202e" else c for c in name) in texts
    assert not [str(w.message) for w in recwarn if "lyph" in str(w.message)]


def test_figures_have_no_style_no_colour_of_their_own_and_unique_ids(scored_run: Path) -> None:
    found = plots(gather([scored_run]))
    ids = []
    for plot in found:
        root = ElementTree.fromstring(plot.svg)
        assert (root.get("role"), root[0].tag, root[1].tag) == ("img", "title", "desc")
        for element in root.iter():
            assert element.tag not in ("style", "script", "metadata")
            assert not {"style", "onload"} & set(element.attrib)
            assert element.get("fill", "none") == element.get("stroke", "none") == "none"
            if element.get("href"):
                assert element.get("href", "").startswith("#plot")
            if element.get("id"):
                ids.append(element.get("id"))
    assert len(ids) == len(set(ids)) > 2
    assert [plot.svg for plot in plots(gather([scored_run]))] == [plot.svg for plot in found]
