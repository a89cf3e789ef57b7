"""What people read: the built-in text, and templates of their own with it behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nptwatch.alerts.apprising import LOUDNESS
from nptwatch.alerts.samples import FIELDS, KINDS, sample
from nptwatch.alerts.templates import Texts
from nptwatch.alerts.texts import Text, built_in
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def event(**changes: Any) -> dict[str, Any]:
    """An event of a run that reached GOOD."""
    return sample("reached_good") | changes


def test_a_text_says_what_happened_and_what_to_do_next() -> None:
    """Run, step, old and new grade, numbers with their change, forecast, findings, path, id."""
    assert built_in(event()) == Text(
        title="[nptwatch] example: reached GOOD at step 1000",
        body="""\
Run example: reached GOOD at step 1000 (was FAIR).
MSE 0.08 (was 0.12, -0.04), cosine 0.94 (was 0.91, +0.03).
Forecast: EXCELLENT at about step 2000 (1800 to 2400)
Findings:
- This is an example.
Checkpoint: /experiments/example/checkpoints/checkpoint-1000/npt_weights.pt
Next: try it, or train on: `nptwatch show \
/experiments/example/checkpoints/checkpoint-1000/npt_weights.pt`
Event: 00000000-0000-0000-0000-000000000000""",
    )


def test_what_is_not_known_is_left_out() -> None:
    """A first measurement has no change, a file without a step no step."""
    text = built_in({"kind": "reached_good", "run": "r", "new": "GOOD", "mse": 0.08, "step": None})
    assert text.title == "[nptwatch] r: reached GOOD"
    assert text.body.splitlines() == [
        "Run r: reached GOOD.",
        "MSE 0.08.",
        "Next: `nptwatch status`",
    ]


def test_a_title_is_one_line_whatever_a_run_is_called() -> None:
    """It becomes a mail's subject."""
    assert built_in(event(run="a\nBcc: x")).title.startswith("[nptwatch] a Bcc: x: reached GOOD")


def test_a_late_result_is_marked() -> None:
    """In title and text."""
    text = built_in(event(late=True))
    assert "measured late" in text.title
    assert "measured late" in text.body.splitlines()[0]


def test_what_to_type_can_be_pasted_into_a_shell() -> None:
    """Whatever a run is called."""
    text = built_in(sample("new_best") | {"run": "it's $(mine)"})
    assert "Next: `nptwatch best 'it'\"'\"'s $(mine)'`" in text.body


def test_a_digest_has_a_line_for_each_run_of_the_day() -> None:
    """And sums up the rest."""
    runs = sample("digest")["runs"]
    more = [
        {**runs[0], "run": "new", "was": None, "best_mse": None, "measured": 1},
        {**runs[0], "was": "GOOD", "mse": None, "cosine": None, "step": None},
    ]
    assert built_in(sample("digest") | {"runs": runs + more}).body.splitlines()[1:6] == [
        "Measured: 21 checkpoints of 3 runs; 1 run had none.",
        "Now: 2 checkpoints waiting, 0 failed, 0 messages given up.",
        "- example: GOOD (was FAIR) at step 1000, MSE 0.08, cosine 0.94; "
        "best MSE 0.07 at step 900; 10 measured",
        "- new: GOOD (was not measured) at step 1000, MSE 0.08, cosine 0.94; 1 measured",
        "- example: GOOD; best MSE 0.07 at step 900; 10 measured",
    ]
    assert "- and 10 more" in built_in(sample("digest") | {"runs": runs * 30}).body


def test_long_findings_are_cut() -> None:
    """Five of them, three hundred characters each: services cut or refuse what is longer."""
    text = built_in(event(findings=[{"code": "X", "text": "x" * 9999}] * 7))
    assert "- and 2 more" in text.body
    assert len(text.body) < 2500


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_words_of_its_own(kind: str) -> None:
    """A title of one line and something to do, without a placeholder left."""
    text = built_in(sample(kind))
    assert kind in {"recovered", "test"} or kind not in text.body
    assert "\n" not in text.title
    assert "{" not in text.title + text.body
    assert "Next: " in text.body


def test_samples_say_only_what_templates_may_name() -> None:
    """And the services' colours are of kinds that there are."""
    assert {field for kind in KINDS for field in sample(kind)} <= set(FIELDS)
    assert set(LOUDNESS) <= set(KINDS)


def test_a_template_gives_title_and_text(tmp_path: Path) -> None:
    """Of its kind, else the default's; the built-in words are there to be used."""
    (tmp_path / "reached_good.txt").write_text(
        "{{ run }} is {{ new }}\n\nMSE {{ mse }}\n{{ text }}"
    )
    (tmp_path / "default.txt").write_text("{{ kind }}: {{ title }}")
    texts = Texts(tmp_path)

    good = texts.of(event())
    assert good.title == "example is GOOD"
    assert good.body.startswith("MSE 0.08\nRun example: reached GOOD")
    assert texts.of(sample("silent")).title.startswith("silent: [nptwatch] example: no new")
    texts.check()


def test_what_an_event_does_not_say_is_none(tmp_path: Path) -> None:
    """A template may name each field, whatever the kind."""
    (tmp_path / "default.txt").write_text("{{ mse or 'no MSE' }}, {{ run or 'no run' }}")
    assert Texts(tmp_path).of(sample("digest")).title == "no MSE, no run"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ nonsense }}", "UndefinedError: 'nonsense' is undefined"),
        ("ok\n{% if %}", "line 2: TemplateSyntaxError"),
        ('{{ "%.4f" | format(run) }}', "TypeError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ findings.append(1) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "TypeError: no loader"),
        ("{% for i in range(9999999) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}x{% endfor %}", "more than 20000 characters"),
        ("  \n ", "gives no text"),
    ],
)
def test_a_template_that_does_not_work_costs_no_alert(
    tmp_path: Path, logs: Sequence[Mapping[str, Any]], template: str, told: str
) -> None:
    """The built-in text is sent, the log says why, and `config check` says it before."""
    (tmp_path / "reached_good.txt").write_text(template)
    texts = Texts(tmp_path)

    assert texts.of(event()) == built_in(event())
    (entry,) = logs
    assert entry["event"] == "template_failed"
    assert told in entry["error"]
    with pytest.raises(ConfigError) as caught:
        texts.check()
    assert told in str(caught.value)
    assert "reached_good.txt" in str(caught.value)


def test_a_default_is_tried_on_every_kind_that_it_is_for(tmp_path: Path) -> None:
    """Here on that without numbers; a kind with a template of its own does not count."""
    (tmp_path / "default.txt").write_text("{{ mse + 1 }}")
    for kind in KINDS:
        if kind not in {"invalid", "reached_good"}:
            (tmp_path / f"{kind}.txt").write_text("x")
    with pytest.raises(ConfigError, match="tried on invalid"):
        Texts(tmp_path).check()
    (tmp_path / "invalid.txt").write_text("x")
    Texts(tmp_path).check()


def test_a_file_for_no_kind_and_a_missing_folder_are_problems(tmp_path: Path) -> None:
    """A typo would never be used, in silence."""
    (tmp_path / "reached_god.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"did you mean reached_good\.txt\?"):
        Texts(tmp_path).check()
    with pytest.raises(ConfigError, match="No such file"):
        Texts(tmp_path / "no").check()
    assert Texts(tmp_path / "no").of(event()) == built_in(event())
