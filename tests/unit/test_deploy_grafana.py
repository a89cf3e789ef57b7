"""deploy/grafana: dashboards that Grafana can lay out, whose queries real engines understand."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deploying import DEPLOY, undocumented
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from stocking import QUICK, alert_good, claimed, measured, whole

from nptwatch.diagnostics.grading import EXCELLENT_MSE, FAIR_MSE, GOOD_MSE, Grade
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue

FOLDER = DEPLOY / "grafana"
BOARDS = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("dashboards/*.json")}
BANDS = [None, EXCELLENT_MSE, GOOD_MSE, FAIR_MSE]
WIDTH = 24

boards = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def queries(name: str, key: str) -> list[tuple[str, str]]:
    """Give a dashboard's queries by the titles of their panels."""
    return [(p["title"], t[key]) for p in BOARDS[name]["panels"] for t in p["targets"]]


def expanded(query: str) -> str:
    """Put in place what Grafana does before it asks."""
    for macro, becomes in (
        (r"\$__timeFilter\(([\w.]+)\)", r"\1 BETWEEN now() - interval '1 day' AND now()"),
        (
            r"\$__timeGroupAlias\(([\w.]+), \$__interval\)",
            r'floor(extract(epoch FROM \1)/60)*60 AS "time"',
        ),
        (r"\$\{run:sqlstring\}", "'equivalence'"),
        (r"\$run\b", ".*"),
    ):
        query = re.sub(macro, becomes, query)
    assert "$" not in query, query
    return query


@boards
def test_dashboards_can_be_laid_out(board: dict[str, Any]) -> None:  # Any: JSON
    """Panels have ids of their own, lie inside the grid, and none on another."""
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 10
    for panel in panels:
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= WIDTH, panel["title"]
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = [
            one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]
            for at, size in (("x", "w"), ("y", "h"))
        ]
        assert any(apart), (one, other)


@boards
def test_dashboards_ask_the_source_that_is_chosen(board: dict[str, Any]) -> None:  # Any: JSON
    """No id of somebody's own data source: a variable, of the type that is provisioned."""
    source, *others = board["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    told = {"type": source["query"], "uid": "${datasource}"}
    asking = [*board["panels"], *(t for p in board["panels"] for t in p["targets"]), *others]
    assert all(one["datasource"] == told for one in asking)
    file = FOLDER / "provisioning/datasources/nptwatch.yaml"
    provisioned = yaml.safe_load(file.read_text())["datasources"]
    assert source["query"] in {one["type"] for one in provisioned}
    assert re.fullmatch("nptwatch-[a-z]+", board["uid"])


def test_mse_is_drawn_on_the_guides_bands() -> None:
    """Every curve of MSE has the grades' bounds as areas; over Postgres one is against the step."""
    drawn = []
    for board in BOARDS.values():
        for panel in board["panels"]:
            if "MSE" in panel["title"]:
                defaults = panel["fieldConfig"]["defaults"]
                assert [s["value"] for s in defaults["thresholds"]["steps"]] == BANDS
                assert defaults["custom"]["thresholdsStyle"] == {"mode": "area"}
                drawn.append((panel["type"], panel["options"].get("xField")))
    assert sorted(drawn, key=str) == [
        ("timeseries", None),
        ("timeseries", None),
        ("trend", "step"),
    ]


@boards
def test_every_grade_has_its_colour(board: dict[str, Any]) -> None:  # Any: JSON
    """A grade that is added must be added here."""
    panel = board["panels"][0]
    assert panel["title"] == "Runs by grade"
    coloured = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
    assert coloured == {str(grade) for grade in Grade} - {"UNLOADABLE"}


@pytest.mark.parametrize(("title", "query"), queries("daemons", "expr"))
def test_queries_of_prometheus_ask_for_documented_metrics(title: str, query: str) -> None:
    """Each is PromQL, of names and labels that docs/metrics.md promises."""
    assert undocumented(expanded(query)) == [], title


def test_variables_ask_for_what_is_there() -> None:
    """The list of runs is a metric's label, and a column of a view."""
    (variable,) = BOARDS["daemons"]["templating"]["list"][1:]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
    assert found
    assert undocumented(f'{found[1]}{{{found[2]}=~".*"}}') == []


@pytest.fixture
def stocked(database: Database, catalog: Catalog, queue: Queue) -> Database:
    """Give a database in which something happened in the last day."""
    lately = datetime.now(UTC) - timedelta(minutes=1)
    for step, mse in ((100, 0.3), (200, 0.06)):
        catalog.admit(whole("equivalence", step), QUICK)
        result = measured("GOOD" if mse < GOOD_MSE else "FAIR", mse, measured_at=lately)
        assert queue.finish(claimed(queue), "w", result, alert_good)
    catalog.admit(whole("equivalence", 300), QUICK)
    Workers(database).register("w", host="h", pid=1, device="cpu")
    with database.begin() as connection:
        connection.execute(text("UPDATE events SET at = now()"))
    return database


@pytest.fixture
def reader(stocked: Database) -> Iterator[Connection]:
    """Give what Grafana's user sees: the role of reader.sql, which is given again at an upgrade."""
    with stocked.begin() as connection:
        for _ in range(2):
            connection.exec_driver_sql((FOLDER / "reader.sql").read_text())
    with stocked.engine.connect() as connection:
        connection.execute(text("SET ROLE grafana"))
        connection.commit()
        yield connection
        connection.rollback()
        connection.execute(text("RESET ROLE"))
        connection.execute(text("DROP OWNED BY grafana"))
        connection.execute(text("DROP ROLE grafana"))
        connection.commit()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_queries_of_the_database_find_something(reader: Connection) -> None:
    """Each panel's query, asked by the role that reader.sql makes, has a row with a value."""
    variable = BOARDS["history"]["templating"]["list"][1]["query"]
    asked = [("variable", variable), *queries("history", "rawSql")]
    assert len(asked) == 11
    for title, query in asked:
        rows = reader.execute(text(expanded(query).replace(":", "\\:"))).mappings().all()
        assert rows, title
        assert any(value is not None for value in rows[0].values()), title


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_grafanas_user_can_do_nothing_else(reader: Connection) -> None:
    """Dashboards can be edited by many: neither reports nor payloads, and no change."""
    for query in (
        "SELECT payload FROM events",
        "SELECT details FROM results",
        "UPDATE jobs SET state = 'cancelled'",
        "CREATE TABLE public.mine (a int)",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"):
            reader.execute(text(query))
        reader.rollback()
