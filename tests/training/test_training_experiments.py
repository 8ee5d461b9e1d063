import pytest

from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.training import load_recipe, recipe_names
from momentumrnn.training.experiments import PAPER, expand_names, experiment_names, load_experiment
from momentumrnn.training.plan import Plan, load_plan, run_name


@pytest.mark.parametrize("name", experiment_names())
def test_every_row_of_an_experiment_can_be_built(name):
    experiment = load_experiment(name)
    assert experiment.panels
    names = [row.name for panel in experiment.panels for row in panel.all_rows()]
    for panel in experiment.panels:
        rows = panel.all_rows()
        assert len(rows) >= 2
        assert len({row.name for row in rows}) == len(rows)
        recipes = [row.load() for row in rows]
        if panel.trains:
            assert len({recipe.task().metric for recipe in recipes}) == 1
        assert not panel.published or len(panel.published) == len(rows)
        assert (panel.base is None) == ("grid" not in panel.shows)
        assert (panel.target is None) == ("time" not in panel.shows)
    assert not any(" " in name or "=" in name for name in names)


def test_every_published_row_is_in_a_table():
    rows = {
        row.recipe
        for name in experiment_names()
        for p in load_experiment(name).panels
        for row in p.all_rows()
    }
    published = {name for name in recipe_names() if load_recipe(name).published.values()}
    assert published <= rows


def test_a_grid_crosses_its_settings():
    panel = load_experiment("fig6").panels[0]
    rows = panel.all_rows()
    assert panel.grid is not None
    assert len(rows) == len(panel.grid["rule.momentum"]) * len(panel.grid["rule.step_size"])
    recipe = rows[-1].load()
    assert (recipe.rule.momentum, recipe.rule.step_size) == (0.99, 1.0)


def test_all_means_the_paper():
    assert set(expand_names(["all"])) == set(PAPER) & set(experiment_names())
    assert "small" not in expand_names(["all"])
    assert expand_names(["fig3", "table1", "fig3"]) == ("fig3", "table1")
    with pytest.raises(RecipeError, match="did you mean 'table1'"):
        expand_names(["tabel1"])


def test_a_plan_holds_each_run_once_and_the_first_seeds_first():
    plan = Plan(("table1", "fig3", "cost"), seeds=2, only=("mnist-lstm", "timit-lstm-158"))
    names = list(plan.runs())
    rows = ["mnist-lstm-128", "mnist-lstm-256", "pmnist-lstm-128", "pmnist-lstm-256", "timit-lstm-158"]
    assert names == [f"{row}-seed-{seed}" for seed in (0, 1) for row in rows]
    assert {recipe.training.seed for recipe in plan.runs().values()} == {0, 1}
    assert run_name(plan.rows()[0], 1) == "mnist-lstm-128-seed-1"


def test_changes_reach_every_run():
    plan = Plan(("fig3",), seeds=1, overrides=("training.epochs=2",))
    assert {recipe.training.epochs for recipe in plan.runs().values()} == {2}


def test_a_shrunk_plan_has_nothing_published_beside_it():
    for recipe in Plan(("response",), seeds=1, smoke=True).runs().values():
        assert recipe.model.hidden_size == 8
        assert recipe.data.subset == 16 or recipe.data.length == 20
        assert not recipe.published.values()


def test_a_plan_is_read_back(tmp_path):
    plan = Plan(("table1",), seeds=3, overrides=("training.epochs=2",), smoke=True, only=("lstm",))
    assert load_plan(tmp_path) is None
    plan.save(tmp_path)
    assert load_plan(tmp_path) == plan
    (tmp_path / "plan.toml").write_text("[plan]\nseeds = 1\n")
    with pytest.raises(CheckpointError, match=r"plan\.toml is damaged: missing key plan\.experiments"):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"seeds": 0}, "expected 1 or more"), ({"overrides": ("training.seed=1",)}, "counted from 0")],
)
def test_a_plan_that_cannot_be(values, message):
    with pytest.raises(RecipeError, match=message):
        Plan(("table1",), **values)


@pytest.mark.parametrize(
    ("assignments", "kept"),
    [
        (["training.epochs=2", "training.seed=4"], True),
        (["data.validation=100"], True),
        (["model.hidden_size=64"], False),
        (["rule.step_size=0.5"], False),
        (["optimizer.lr=0.1"], False),
        (["optimizer.lr=0.1", "published.test_accuracy=[99]"], True),
    ],
)
def test_a_published_value_stays_with_the_papers_row(assignments, kept):
    recipe = load_recipe("mnist-momentum-lstm-128").override(assignments)
    assert bool(recipe.published.values()) == kept
