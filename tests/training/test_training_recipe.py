import dataclasses

import pytest

from momentumrnn.errors import RecipeError
from momentumrnn.tasks.models import recurrent_layers
from momentumrnn.training import Recipe, load_recipe, recipe_names
from momentumrnn.training.model import build_model
from momentumrnn.training.toml_io import parse_toml, parse_value, write_toml

TABLE_1 = {
    (model, size)
    for model, sizes in {
        "lstm": (128, 256),
        "momentum-lstm": (128, 256),
        "adam-lstm": (256,),
        "rmsprop-lstm": (256,),
        "sr-lstm": (256,),
    }.items()
    for size in sizes
}


def test_every_row_is_installed():
    expected = {f"{data}-{model}-{size}" for data in ("mnist", "pmnist") for model, size in TABLE_1}
    expected |= {f"digits-{model}" for model, _ in TABLE_1}
    assert set(recipe_names()) == expected


@pytest.mark.parametrize("name", recipe_names())
def test_installed_recipe_is_read_built_and_written_back(name):
    recipe = load_recipe(name)
    model = build_model(recipe, device="meta")
    assert model.head.in_features == recipe.model.hidden_size
    assert Recipe.from_sections(parse_toml(recipe.to_toml(), name)) == recipe
    data, _, rest = name.partition("-")
    assert recipe.data.name == data
    spelt = rest.rstrip("0123456789").replace("-", "").removesuffix("-")
    assert recipe.model.name.lower() == spelt
    if data != "digits":
        assert name.endswith(str(recipe.model.hidden_size))
        assert recipe.published.test_accuracy
        assert recipe.published.source == "Table 1"
        assert (recipe.training.epochs, recipe.training.batch_size) == (150, 128)
        assert dataclasses.astuple(recipe.optimizer) == ("rmsprop", 1e-3, 0.9, None, 1.0)
        assert recipe.model.init == "paper"


def test_digits_recipes_differ_in_the_model_alone():
    recipes = [load_recipe(name) for name in recipe_names() if name.startswith("digits-")]
    assert len(recipes) == 5
    for recipe in recipes:
        assert recipe.optimizer == recipes[0].optimizer
        assert recipe.training == recipes[0].training
        assert dataclasses.replace(recipe.model, name="") == dataclasses.replace(recipes[0].model, name="")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mnist-adam-lstm-256", {"momentum": 0.6, "step_size": 0.6, "beta": 0.1}),
        ("pmnist-adam-lstm-256", {"momentum": 0.6, "step_size": 1.0, "beta": 0.01}),
        ("mnist-rmsprop-lstm-256", {"step_size": 0.6, "beta": 0.9}),
        ("pmnist-rmsprop-lstm-256", {"step_size": 1.0, "beta": 0.01}),
        ("mnist-sr-lstm-256", {"step_size": 1.0, "restart": 2}),
        ("pmnist-sr-lstm-256", {"step_size": 0.9, "restart": 40}),
        ("mnist-momentum-lstm-128", {"momentum": 0.6, "step_size": 0.6}),
        ("pmnist-momentum-lstm-256", {"momentum": 0.6, "step_size": 1.0}),
        ("pmnist-lstm-128", {}),
    ],
)
def test_coefficients_are_the_papers(name, rule):
    assert load_recipe(name).rule_values() == rule


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.hiden_size=8", "unknown key model.hiden_size: did you mean model.hidden_size?"),
        ("modle.name=LSTM", "unknown section modle: did you mean model?"),
        ("training.zzz=1", "unknown key training.zzz: known are epochs, batch_size"),
        ("model.name=AdamLTSM", "no model 'AdamLTSM': did you mean 'AdamLSTM'?"),
        ("model.name=LSTMCell", "no model 'LSTMCell'"),
        ("data.name=digit", "data.name: there is no dataset 'digit': did you mean 'digits'?"),
        ("training.epochs=1.5", "training.epochs: expected a whole number, got 1.5"),
        ("training.epochs=true", "training.epochs: expected a whole number, got True"),
        ("training.epochs=0", "training.epochs: expected 1 or more, got 0"),
        ("training.batch_size=0", "training.batch_size: expected 1 or more, got 0"),
        ("training.seed=-1", "training.seed: expected 0 to"),
        ("training.checkpoint_seconds=0", "training.checkpoint_seconds: expected a finite number above 0"),
        ("model.hidden_size=-4", "model.hidden_size: expected 1 or more, got -4"),
        ("model.name=3", "model.name: expected a string, got 3"),
        ("model.init=orthogonal", "model.init: expected 'default' or 'paper', got 'orthogonal'"),
        ("model.dropout=0.5", "model.dropout: acts between stacked layers"),
        ("rule.momentum=1", "rule.momentum: expected at least 0 and below 1, got 1.0"),
        ("rule.momentum=nan", "rule.momentum: expected at least 0 and below 1, got nan"),
        ("rule.step_size=0", "rule.step_size: expected a finite number above 0, got 0.0"),
        ("rule.step_size=inf", "rule.step_size: expected a finite number above 0, got inf"),
        ("rule.beta=1.0", "rule.beta: expected at least 0 and below 1, got 1.0"),
        ("rule.restart=2", "rule.restart: AdamLSTM does not take it; it takes momentum, step_size, beta"),
        ("rule.velocity=gates", "rule.velocity: expected 'gate' or 'hidden', got 'gates'"),
        ("rule.learnable=channels", "rule.learnable: expected true or false or 'channel', got 'channels'"),
        ("model.name=LSTM", "rule.momentum: LSTM does not take it; it has no rule"),
        ("optimizer.name=rmsprob", "optimizer.name: expected 'rmsprop' or 'adam' or 'sgd', got 'rmsprob'"),
        ("optimizer.lr=0", "optimizer.lr: expected a finite number above 0, got 0.0"),
        ("optimizer.smoothing=0.9", "optimizer.smoothing: belongs to rmsprop, got it with 'adam'"),
        ("optimizer.momentum=0.9", "optimizer.momentum: belongs to sgd, got it with 'adam'"),
        ("data.validation=100", "data.validation: the split of 'digits' is fixed"),
        ('published.test_accuracy=[1, "a"]', "published.test_accuracy: expected a number, got 'a'"),
        ("training=1", "expected section.key=value, such as training.epochs=1, got 'training=1'"),
        ("training.epochs", "expected section.key=value"),
    ],
)
def test_what_no_run_can_have_is_rejected(change, message):
    recipe = load_recipe("digits-adam-lstm")
    with pytest.raises(RecipeError) as caught:
        recipe.override([change])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("digits-sr-lstm", "restart"),
        ("digits-sr-lstm", "step_size"),
        ("digits-adam-lstm", "beta"),
        ("digits-momentum-lstm", "momentum"),
    ],
)
def test_a_missing_coefficient_is_named(name, left_out):
    sections = load_recipe(name).sections()
    del sections["rule"][left_out]
    with pytest.raises(RecipeError, match=f"rule.{left_out}: .*LSTM needs it"):
        Recipe.from_sections(sections, "mine.toml")


def test_missing_section_and_key():
    sections = load_recipe("digits-lstm").sections()
    with pytest.raises(RecipeError, match=r"mine\.toml: missing key training\.epochs"):
        Recipe.from_sections({**sections, "training": {"batch_size": 2}}, "mine.toml")
    del sections["optimizer"]
    with pytest.raises(RecipeError, match=r"mine\.toml: missing section optimizer"):
        Recipe.from_sections(sections, "mine.toml")
    with pytest.raises(RecipeError, match="optimizer: expected a section, got 3"):
        Recipe.from_sections({**sections, "optimizer": 3}, "mine.toml")


def test_a_misspelt_recipe_in_a_file_is_reported_with_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(load_recipe("digits-lstm").to_toml().replace("batch_size", "bach_size", 1))
    with pytest.raises(RecipeError, match=r"mine\.toml: unknown key training\.bach_size: did you mean"):
        load_recipe(path)
    path.write_text("[data\n")
    with pytest.raises(RecipeError, match=r"mine\.toml: not valid TOML"):
        load_recipe(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"mine\.toml: cannot be read as text"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "other.toml")


def test_nearest_recipe_name():
    with pytest.raises(
        RecipeError, match="no recipe 'digit-momentum-lstm': did you mean 'digits-momentum-lstm'"
    ):
        load_recipe("digit-momentum-lstm")


def test_overrides_are_typed():
    recipe = load_recipe("digits-lstm").override(
        ["model.hidden_size=128", "optimizer.lr=1e-2", "optimizer.name=sgd", "optimizer.clip_norm=2"]
    )
    assert (recipe.model.hidden_size, recipe.optimizer.lr) == (128, 0.01)
    assert (recipe.optimizer.name, recipe.optimizer.clip_norm) == ("sgd", 2.0)


def test_an_override_cannot_smuggle_in_another_key():
    assert parse_value("1\nother = 2") == "1\nother = 2"


@pytest.mark.parametrize(
    "value", ['quote " and \\ and \n and \x7f and ü', 1e-300, 0.1, -3, True, [1.5, 2.0], ["a"], float("inf")]
)
def test_toml_values_survive_writing(value):
    assert parse_toml(write_toml({"section": {"key": value}}), "here") == {"section": {"key": value}}


def test_recurrent_layers_are_layers():
    names = set(recurrent_layers())
    assert {"LSTM", "GRU", "RNN", "AdamLSTM", "SRLSTM", "MomentumGRU"} <= names
    assert not {"LSTMCell", "GRUCell", "RNNCell"} & names
