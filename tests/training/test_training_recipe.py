import dataclasses
import math

import pytest

from momentumrnn.errors import RecipeError
from momentumrnn.tasks.models import recurrent_layers
from momentumrnn.training import Recipe, load_recipe, recipe_names
from momentumrnn.training.model import build_model
from momentumrnn.training.optimizers import build_optimizers
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


MODELS = ("lstm", "momentum-lstm", "adam-lstm", "rmsprop-lstm", "sr-lstm")
# Tables 4 and 5: the rule's coefficients, K, and the two learning rates.
DTRIV = {
    "pmnist-dtriv-170": ({}, 1, 7e-4, 2e-4),
    "pmnist-dtriv-360": ({}, math.inf, 7e-4, 5e-5),
    "pmnist-dtriv-512": ({}, math.inf, 3e-4, 7e-5),
    "pmnist-momentum-dtriv-170": ({"momentum": 0.6, "step_size": 0.9}, 1, 7e-4, 2e-4),
    "pmnist-momentum-dtriv-360": ({"momentum": 0.3, "step_size": 0.3}, math.inf, 7e-4, 5e-5),
    "pmnist-momentum-dtriv-512": ({"momentum": 0.3, "step_size": 0.3}, math.inf, 3e-4, 7e-5),
    "pmnist-adam-dtriv-512": ({"momentum": 0.3, "step_size": 0.3, "beta": 0.8}, math.inf, 3e-4, 7e-5),
    "pmnist-rmsprop-dtriv-512": ({"step_size": 0.3, "beta": 0.9}, math.inf, 3e-4, 7e-5),
    "pmnist-sr-dtriv-512": ({"restart": 2, "step_size": 0.3}, math.inf, 3e-4, 7e-5),
    "timit-dtriv-224": ({}, math.inf, 1e-3, 2e-4),
    "timit-dtriv-322": ({}, math.inf, 1e-3, 2e-4),
    "timit-momentum-dtriv-224": ({"momentum": 0.3, "step_size": 0.1}, math.inf, 1e-3, 2e-4),
    "timit-momentum-dtriv-322": ({"momentum": 0.3, "step_size": 0.1}, math.inf, 1e-3, 2e-4),
}
DRAWN = ("copying-100", "copying-2000", "adding-100", "adding-750")
# The authors' response: the same networks, trained by Adam.
BY_ADAM = {f"pmnist-{model}-256-by-adam": f"pmnist-{model}-256" for model in MODELS} | {
    f"pmnist-{model}-512-by-adam": f"pmnist-{model}-512" for model in ("dtriv", "momentum-dtriv")
}
DRAWN_DTRIV = [
    f"{problem}-{model}-128" for problem in DRAWN for model in ("dtriv", "adam-dtriv", "rmsprop-dtriv")
]


# Table 3 and the authors' response: the rule's coefficients.
PTB = {
    "ptb-lstm-1150": {},
    "ptb-momentum-lstm-1150": {"momentum": 0.0, "step_size": 0.6},
    "ptb-sr-lstm-1150": {"step_size": 0.6, "restart": 2},
    "ptb-adam-lstm-1150": {"momentum": 0.6, "step_size": 0.6, "beta": 0.1},
    "ptb-rmsprop-lstm-1150": {"step_size": 0.6, "beta": 0.9},
}
SMALL_PTB = ("ptb-small-lstm-200", "ptb-small-momentum-lstm-200")
# What the paper states alike for all of one data set's rows; the sets above have tests of their own.
OTHER_ROWS = [
    name
    for name in recipe_names()
    if name not in {*DTRIV, *BY_ADAM, *DRAWN_DTRIV, *PTB, *SMALL_PTB} and not name.startswith("digits-")
]


def test_every_row_is_installed():
    expected = {f"{data}-{model}-{size}" for data in ("mnist", "pmnist") for model, size in TABLE_1}
    expected |= {f"digits-{model}" for model in MODELS}
    expected |= {f"timit-{model}-{size}" for model in MODELS for size in (84, 120, 158)}
    expected |= {f"prompts-{model}-158" for model in MODELS}
    expected |= {f"{problem}-{model}-128" for problem in DRAWN for model in MODELS}
    assert set(recipe_names()) == expected | set(DTRIV) | set(BY_ADAM) | set(DRAWN_DTRIV) | set(PTB) | set(
        SMALL_PTB
    )


@pytest.mark.parametrize("name", recipe_names())
def test_installed_recipe_is_read_built_and_written_back(name):
    recipe = load_recipe(name)
    model = build_model(recipe, device="meta")
    assert model.head.in_features == (recipe.language.embedding_size or recipe.model.hidden_size)
    assert Recipe.from_sections(parse_toml(recipe.to_toml(), name)) == recipe
    data, _, rest = name.partition("-")
    assert recipe.data.name == data
    if data in ("copying", "adding"):
        length, _, rest = rest.partition("-")
        assert recipe.data.length == int(length)
    rest = rest.removesuffix("-by-adam").removeprefix("small-")
    spelt = rest.rstrip("0123456789").replace("-", "").removesuffix("-")
    assert recipe.model.name.lower() == spelt
    if data != "digits":
        assert rest.endswith(f"-{recipe.model.hidden_size}")


@pytest.mark.parametrize("name", OTHER_ROWS)
def test_rows_of_the_first_tables_are_the_papers(name):
    recipe = load_recipe(name)
    data, _, rest = name.partition("-")
    assert recipe.model.init == "paper"
    if data in ("mnist", "pmnist"):
        assert recipe.published.test_accuracy
        assert recipe.published.source == "Table 1"
        assert (recipe.training.epochs, recipe.training.batch_size) == (150, 128)
        assert dataclasses.astuple(recipe.optimizer) == ("rmsprop", 1e-3, 0.9, None, 1.0, *[None] * 4)
        assert recipe.model.forget_bias is None
    if data == "timit":
        assert recipe.model.forget_bias == -4
        assert (recipe.training.epochs, recipe.training.batch_size) == (700, 32)
        assert dataclasses.astuple(recipe.optimizer) == ("adam", 1e-4, *[None] * 7)
        assert bool(recipe.published.test_mse) == (recipe.model.hidden_size == 158)
    if data == "prompts":
        timit = load_recipe(f"timit-{rest}")
        assert (recipe.model, recipe.rule, recipe.optimizer) == (timit.model, timit.rule, timit.optimizer)
        assert not recipe.published.values()
    if data in ("copying", "adding"):
        assert recipe.training.batch_size == 128
        model = rest.removeprefix(f"{recipe.data.length}-").removesuffix("-128")
        pmnist = load_recipe(f"pmnist-{model}-256")
        assert (recipe.rule, recipe.optimizer) == (pmnist.rule, pmnist.optimizer)
        assert recipe.model == dataclasses.replace(pmnist.model, hidden_size=128)
        assert bool(recipe.published.train_loss) == (recipe.data.length in (750, 2000))


@pytest.mark.parametrize("name", DTRIV)
def test_orthogonal_rows_are_the_papers(name):
    recipe, (rule, every, lr, lr_orthogonal) = load_recipe(name), DTRIV[name]
    speech = name.startswith("timit")
    assert recipe.rule_values() == rule
    assert (recipe.model.rebase_every, recipe.model.map) == (every, None)
    assert recipe.model.orthogonal_init == ("henaff" if speech else "cayley")
    optimizer = recipe.optimizer
    assert (optimizer.lr, optimizer.lr_orthogonal, optimizer.clip_norm) == (lr, lr_orthogonal, 1.0)
    assert (optimizer.name, optimizer.orthogonal) == (("adam", "rmsprop") if speech else ("rmsprop", None))
    assert (recipe.training.epochs, recipe.training.batch_size) == (700 if speech else 150, 128)
    assert optimizer.smoothing is None


@pytest.mark.parametrize("name", BY_ADAM)
def test_rows_trained_by_adam_differ_in_nothing_else(name):
    recipe, other = load_recipe(name), load_recipe(BY_ADAM[name])
    assert (recipe.data, recipe.model, recipe.rule) == (other.data, other.model, other.rule)
    assert recipe.training == other.training
    optimizer = dataclasses.replace(other.optimizer, name="adam", smoothing=None)
    assert recipe.optimizer == optimizer
    assert recipe.published.source == "authors' response"
    assert recipe.published.std


@pytest.mark.parametrize("name", DRAWN_DTRIV)
def test_orthogonal_rows_of_drawn_problems_share_their_rules_with_pmnist(name):
    recipe = load_recipe(name)
    assert recipe.rule == load_recipe(f"pmnist-{name.split('-', 2)[2].removesuffix('-128')}-512").rule
    plain = load_recipe(f"{recipe.data.name}-{recipe.data.length}-dtriv-128")
    assert (recipe.optimizer, recipe.training) == (plain.optimizer, plain.training)
    assert (recipe.model.rebase_every, recipe.model.hidden_size) == (100, 128)
    baseline = load_recipe(f"{recipe.data.name}-{recipe.data.length}-lstm-128")
    assert recipe.training == baseline.training


@pytest.mark.parametrize("name", PTB)
def test_rows_of_the_penn_treebank_are_the_papers(name):
    recipe = load_recipe(name)
    assert recipe.rule_values() == PTB[name]
    model, optimizer, training = recipe.model, recipe.optimizer, recipe.training
    assert (model.num_layers, model.dropout, model.weight_dropout, model.init) == (3, 0.25, 0.5, "paper")
    assert dataclasses.astuple(recipe.language) == (400, None, 0.1, 0.4, 0.4, 2.0, 1.0, 70, None)
    assert dataclasses.astuple(optimizer) == ("sgd", 30.0, None, None, 0.25, None, None, 1.2e-6, 5)
    assert (training.epochs, training.batch_size, training.eval_batch_size) == (500, 20, 10)
    built = build_model(recipe, device="meta")
    # Three LSTMs, the embedding, which is the decoder, and the decoder's bias.
    sizes = [(400, 1150), (1150, 1150), (1150, 400)]
    weights = sum(4 * h * (d + h + 2) for d, h in sizes) + 10_000 * 400 + 10_000
    assert sum(value.numel() for value in built.parameters()) == weights == 24_221_600
    rules = [layer.rule for layer in built.layer.layers]
    assert len({id(rule) for rule in rules if rule is not None}) == (3 if PTB[name] else 0)


@pytest.mark.parametrize("name", SMALL_PTB)
def test_small_models_of_the_penn_treebank_differ_in_the_rule_alone(name):
    recipe, plain = load_recipe(name), load_recipe("ptb-small-lstm-200")
    assert dataclasses.replace(recipe.model, name="") == dataclasses.replace(plain.model, name="")
    assert (recipe.language, recipe.optimizer) == (plain.language, plain.optimizer)
    assert recipe.training == plain.training
    assert recipe.rule_values() == (PTB["ptb-momentum-lstm-1150"] if "momentum" in name else {})
    assert recipe.published.values() == {}


PUBLISHED = {
    "ptb-lstm-1150": {"validation_perplexity": (62.0,)},
    "ptb-momentum-lstm-1150": {"validation_perplexity": (60.7,)},
    "ptb-sr-lstm-1150": {"validation_perplexity": (61.1,), "test_perplexity": (58.83,)},
    "ptb-adam-lstm-1150": {"test_perplexity": (61.11,)},
    "ptb-rmsprop-lstm-1150": {"test_perplexity": (64.53,)},
    "pmnist-lstm-256-by-adam": {"test_accuracy": (92.05,)},
    "pmnist-momentum-dtriv-512-by-adam": {"test_accuracy": (96.01,)},
    "timit-dtriv-322": {"test_mse": (1.65,)},
    "timit-momentum-dtriv-322": {"test_mse": (1.13,)},
    "pmnist-dtriv-512": {},
    "timit-lstm-158": {"test_mse": (9.00,)},
    "timit-momentum-lstm-158": {"test_mse": (5.67,)},
    "timit-adam-lstm-158": {"test_mse": (8.39,)},
    "timit-rmsprop-lstm-158": {"test_mse": (8.85,)},
    "timit-sr-lstm-158": {"test_mse": (5.64,)},
    "copying-2000-lstm-128": {"train_loss": (0.01,)},
    "copying-2000-momentum-lstm-128": {"train_loss": (0.009,)},
    "copying-2000-adam-lstm-128": {"train_loss": (0.004,)},
    "copying-2000-rmsprop-lstm-128": {"train_loss": (0.008,)},
    "copying-2000-sr-lstm-128": {"train_loss": (0.01,)},
    "adding-750-lstm-128": {"train_loss": (0.162,)},
    "adding-750-momentum-lstm-128": {"train_loss": (0.162,)},
    "adding-750-adam-lstm-128": {"train_loss": (0.006,)},
    "adding-750-rmsprop-lstm-128": {"train_loss": (0.004,)},
    "adding-750-sr-lstm-128": {"train_loss": (0.166,)},
    "mnist-lstm-128": {"test_accuracy": (98.70, 97.30)},
    "timit-lstm-84": {},
    "copying-100-lstm-128": {},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_are_the_papers(name):
    assert load_recipe(name).published.values() == PUBLISHED[name]


@pytest.mark.parametrize("bias", [-4.0, 1.0])
def test_the_forget_gates_begin_as_the_recipe_says(bias):
    changes = ["model.hidden_size=6"] + ([] if bias == -4 else ["model.forget_bias=1"])
    layer = build_model(load_recipe("timit-adam-lstm-84").override(changes)).layer
    for name in ("bias_ih_l0", "bias_hh_l0"):
        assert getattr(layer, name).tolist() == [0.0] * 6 + [bias] * 6 + [0.0] * 12


ORTHOGONAL = ["model.init=default", "model.name=DTRIV", "model.hidden_size=5"]


def orthogonal(*more):
    sections = load_recipe("pmnist-lstm-256").sections()
    del sections["published"]
    return Recipe.from_sections(sections).override([*ORTHOGONAL, *more])


def test_an_orthogonal_layer_and_its_optimizer():
    recipe = orthogonal("model.map=cayley", "model.rebase_every=inf", "model.orthogonal_init=henaff")
    assert Recipe.from_sections(parse_toml(recipe.to_toml(), "here")) == recipe
    matrix = build_model(recipe).layer.orthogonal_l0
    assert (matrix.map, matrix.rebase_every, matrix.start) == ("cayley", math.inf, "henaff")

    def groups(*more):
        changed = orthogonal(*more)
        built = build_optimizers(changed.optimizer, build_model(changed))
        return [
            (type(optimizer).__name__, group["lr"], len(group["params"]))
            for optimizer in built
            for group in optimizer.param_groups
        ]

    assert groups() == [("RMSprop", 1e-3, 4), ("RMSprop", 1e-3, 1)]
    assert groups("optimizer.lr_orthogonal=2e-4") == [("RMSprop", 1e-3, 4), ("RMSprop", 2e-4, 1)]
    two = groups("optimizer.lr_orthogonal=2e-4", "optimizer.orthogonal=adam")
    assert two == [("RMSprop", 1e-3, 4), ("Adam", 2e-4, 1)]


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
        ("timit-momentum-lstm-84", {"momentum": 0.3, "step_size": 0.1}),
        ("timit-adam-lstm-120", {"momentum": 0.3, "step_size": 0.1, "beta": 0.999}),
        ("timit-rmsprop-lstm-158", {"step_size": 0.1, "beta": 0.999}),
        ("timit-sr-lstm-158", {"step_size": 0.1, "restart": 2}),
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
        (
            "model.name=LSTM",
            "rule.momentum: LSTM does not take it; it has no rule; leave it out (--set rule.",
        ),
        ("optimizer.name=rmsprob", "optimizer.name: expected 'rmsprop' or 'adam' or 'sgd', got 'rmsprob'"),
        ("optimizer.lr=none", "missing key optimizer.lr"),
        ("optimizer.lrr=none", "unknown key optimizer.lrr: did you mean optimizer.lr?"),
        ("optimizer.lr=0", "optimizer.lr: expected a finite number above 0, got 0.0"),
        ("optimizer.smoothing=0.9", "optimizer.smoothing: belongs to rmsprop, got it with 'adam'"),
        ("optimizer.momentum=0.9", "optimizer.momentum: belongs to sgd, got it with 'adam'"),
        ("data.lenght=3", "unknown key data.lenght: did you mean data.length?"),
        ("data.length=3", "data.length: 'digits' does not take it, got 3; beside its name it takes"),
        ("data.length=0", "data.length: expected 1 or more, got 0"),
        ("data.subset=0", "data.subset: expected 1 or more, got 0"),
        ("data.name=speech", "data.folder: 'speech' needs it; add it to the section [data]"),
        ("training.steps_per_epoch=3", "training.steps_per_epoch: an epoch of 'digits' is once through"),
        ("training.steps_per_epoch=0", "training.steps_per_epoch: expected 1 or more, got 0"),
        ("model.forget_bias=nan", "model.forget_bias: expected a finite number, got nan"),
        ("model.map=exp", "model.map: AdamLSTM does not take it"),
        ("model.map=log", "model.map: expected 'exp' or 'cayley', got 'log'"),
        ("model.rebase_every=3", "model.rebase_every: AdamLSTM does not take it"),
        ("model.orthogonal_init=henaff", "model.orthogonal_init: AdamLSTM does not take it"),
        ("optimizer.lr_orthogonal=1e-3", "optimizer.lr_orthogonal: AdamLSTM has no orthogonal matrix"),
        ("optimizer.lr_orthogonal=0", "optimizer.lr_orthogonal: expected a finite number above 0, got 0.0"),
        ("optimizer.orthogonal=adam", "optimizer.orthogonal: AdamLSTM has no orthogonal matrix"),
        ("published.test_mse=[1]", "published.test_mse: 'digits' is judged by its accuracy, expected test_a"),
        ("data.validation=100", "data.validation: the split of 'digits' is fixed"),
        ("data.vocabulary=100", "data.vocabulary: 'digits' does not take it, got 100"),
        ("language.tied=false", "language.tied: 'digits' is no text; leave it out"),
        ("model.weight_dropout=1", "model.weight_dropout: expected at least 0 and below 1, got 1.0"),
        (
            "optimizer.weight_decay=-1",
            "optimizer.weight_decay: expected a finite number, 0 or more, got -1.0",
        ),
        ("optimizer.average_after=0", "optimizer.average_after: expected 1 or more, got 0"),
        ("published.test_perplexity=[1]", "published.test_perplexity: 'digits' is judged by its accuracy"),
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


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("adding-100-lstm-128", ["data.length=1"], "data.length: 'adding' needs 2 or more, got 1"),
        ("adding-100-lstm-128", ["model.init=default", "model.forget_bias=1"], 'belongs to init = "paper"'),
        ("digits-lstm", ["model.name=GRU"], 'model.init = "paper" is defined for an LSTM of four gates'),
        ("pmnist-lstm-128", ["model.name=DTRIV"], 'model.init = "paper" is defined for an LSTM of four'),
        ("adding-100-lstm-128", ["data.subset=8"], "data.subset: 'adding' is drawn as it is needed; leave"),
        ("timit-lstm-84", ["data.folder=x"], "data.folder: 'timit' does not take it"),
        ("timit-lstm-158", ["published.test_accuracy=[1]"], "expected test_mse, validation_mse or train_"),
        ("timit-lstm-84", ["data.name=copying", "data.length=5"], "say how many steps an epoch is"),
        ("ptb-small-lstm-200", ["data.folder=x"], "data.folder: 'ptb' does not take it"),
        ("ptb-small-lstm-200", ["data.name=text"], "data.folder: 'text' needs it"),
        ("ptb-small-lstm-200", ["data.name=text", "data.folder=x"], "data.vocabulary: 'text' needs it"),
        ("ptb-small-lstm-200", ["data.vocabulary=2"], "data.vocabulary: expected 3 or more, got 2"),
        ("ptb-small-lstm-200", ["language.sequence_length=4"], "sequence_length: expected 5 or more, got 4"),
        ("ptb-small-lstm-200", ["language.word_dropout=1"], "word_dropout: expected at least 0 and below 1"),
        ("ptb-small-lstm-200", ["language.activation_penalty=-1"], "expected a finite number, 0 or more"),
        (
            "ptb-small-lstm-200",
            ["model.num_layers=1", "model.dropout=0", "model.hidden_size=9"],
            "expected language.embedding_size = 200, got 9",
        ),
        (
            "ptb-small-lstm-200",
            ["model.name=GRU", "model.init=default"],
            "model.weight_dropout: GRU does not take it",
        ),
        (
            "pmnist-dtriv-512",
            ["optimizer.average_after=5"],
            "the mean of orthogonal matrices is none, and DTRIV has one",
        ),
        ("pmnist-lstm-128", ["data.validation=0", "optimizer.average_after=5"], "validation decides when"),
        ("ptb-small-lstm-200", ["training.steps_per_epoch=3"], "an epoch of 'ptb' is once through"),
        ("ptb-small-lstm-200", ["published.test_mse=[1]"], "judged by its perplexity, expected test_perp"),
    ],
)
def test_what_other_tasks_cannot_have_is_rejected(name, changes, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name).override(changes)
    assert message in str(caught.value)


def test_a_language_model_needs_the_size_of_its_embedding():
    sections = load_recipe("ptb-small-lstm-200").sections()
    del sections["language"]
    with pytest.raises(RecipeError, match=r"language\.embedding_size: a language model needs it"):
        Recipe.from_sections(sections)


def test_steps_of_a_drawn_problem_are_stated():
    sections = load_recipe("copying-100-lstm-128").sections()
    del sections["training"]["steps_per_epoch"]
    with pytest.raises(RecipeError, match=r"training\.steps_per_epoch: 'copying' is drawn without end"):
        Recipe.from_sections(sections)


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


def test_keys_are_taken_away():
    recipe = load_recipe("mnist-momentum-lstm-128")
    changes = ["optimizer.name=adam", "optimizer.smoothing=none", "model.name=LSTM"]
    changed = recipe.override([*changes, "rule.momentum=none", "rule.step_size=none"])
    assert changed.optimizer.smoothing is None
    assert changed.rule_values() == {}
    assert load_recipe("mnist-lstm-128").override(["optimizer.clip_norm=none"]).optimizer.clip_norm is None


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("training.seed=3", True),
        ("training.epochs=2", True),
        ("data.validation=0", True),
        ("training.batch_size=7", False),
        ("optimizer.lr=0.1", False),
    ],
)
def test_what_is_published_belongs_to_the_paper_s_setting(change, kept):
    recipe = load_recipe("mnist-lstm-128")
    assert recipe.override([change]).published == (recipe.published if kept else type(recipe.published)())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("digits-lstm", ["model.hidden_size=70000"], "at most 17,179,869,184 weights .* got 19,600,"),
        (
            "digits-lstm",
            ["model.hidden_size=5000", "model.num_layers=1000"],
            "at most 17,179,869,184 weights",
        ),
        (
            "adding-100-lstm-128",
            ["training.batch_size=100000000"],
            "training.batch_size: 100,000,000 sequences",
        ),
        (
            "adding-100-lstm-128",
            ["data.length=10000000"],
            "data.length: 1,024 sequences of data.length = 10,",
        ),
        (
            "copying-100-lstm-128",
            ["data.length=10000000"],
            "data.length: 1,024 sequences of data.length = 10,",
        ),
    ],
)
def test_more_than_any_memory_is_refused(name, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(name).override(changes)


def test_the_largest_that_may_be_drawn():
    recipe = load_recipe("adding-100-lstm-128")
    assert recipe.override([f"data.length={2**21}"]).data.length == 2**21


def test_a_stack_deeper_than_any_memory_is_refused():
    recipe = load_recipe("digits-lstm")
    with pytest.raises(RecipeError, match=r"model\.num_layers: expected 1 to 1000, got 10000000"):
        recipe.override(["model.num_layers=10000000"])
