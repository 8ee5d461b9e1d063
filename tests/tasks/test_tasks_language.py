import math

import pytest
import torch
from torch.nn import functional as F

from momentumrnn.data.text import IGNORED, TextSplits, Vocabulary
from momentumrnn.errors import RecipeError
from momentumrnn.tasks import Batch, LayerChoice, Sampling, build_task
from momentumrnn.tasks.contract import PERPLEXITY
from momentumrnn.tasks.dropouts import locked_dropout, word_dropout
from momentumrnn.tasks.generation import draw_words
from momentumrnn.tasks.initialisation import initialise_as_paper
from momentumrnn.tasks.language import LanguageOptions, TextBatches

WORDS = 11


def task_of(**language):
    return build_task("text", folder="x", vocabulary=WORDS, language={"embedding_size": 5, **language})


def model_of(task, name="MomentumLSTM", layers=3, dropout=0.0, rule=None, hidden=6, **options):
    rule = {"momentum": 0.6, "step_size": 0.7} if rule is None else rule
    choice = LayerChoice(name, hidden, layers, dropout, rule, options)
    return task.build_model(task.build_layer(choice), hidden).double()


def oracle(model, words, masks, state, rates, momentum, step_size):
    """Three LSTMs behind heavy balls, a word at a time, every mask given; rates are 1 - p."""
    masks = iter(masks)
    weight = model.embedding.weight
    embedded = weight[words] * (next(masks) / rates["word"])[words]
    inputs = list(embedded * next(masks) / rates["embedding"])
    for index, layer in enumerate(model.layer.layers):
        if index:
            locked = next(masks)[0] / rates["layer"]
            inputs = [x * locked for x in inputs]
        w, b, bu = layer.weight_ih_l0, layer.bias_ih_l0, layer.bias_hh_l0
        u = layer.weight_hh_l0 * next(masks) / rates["weight"]
        h, c, v = state[index]
        said = []
        for x in inputs:
            v = momentum * v + step_size * (x @ w.t() + b)
            i, f, g, o = (v + h @ u.t() + bu).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            said.append(h)
        inputs = said
    last = torch.stack(inputs)
    dropped = last * next(masks) / rates["output"]
    assert next(masks, None) is None
    return dropped @ weight.t() + model.head.bias, last, dropped


def test_the_model_is_the_one_of_the_equations(monkeypatch):
    task = task_of(
        word_dropout=0.3,
        embedding_dropout=0.4,
        output_dropout=0.2,
        activation_penalty=2.0,
        slowness_penalty=1.0,
    )
    model = model_of(task, dropout=0.25, weight_dropout=0.5)
    model.head.bias.data.normal_()
    masks = []

    def dropout(x, p, training=True, inplace=False):
        assert training
        masks.append(torch.bernoulli(torch.full_like(x, 1 - p).double()))
        return x * masks[-1] / (1 - p)

    words = torch.randint(WORDS, (7, 3))
    state = [(torch.randn(3, h), torch.randn(3, h), torch.randn(3, 4 * h)) for h in (6, 6, 5)]
    state = [tuple(tensor.double() for tensor in place) for place in state]
    monkeypatch.setattr(F, "dropout", dropout)
    made = model(words, tuple(tensor.unsqueeze(0) for place in state for tensor in place))
    monkeypatch.undo()
    shapes = [(WORDS, 1), (1, 3, 5), (24, 6), (1, 3, 6), (24, 6), (1, 3, 6), (20, 5), (1, 3, 5)]
    assert [tuple(mask.shape) for mask in masks] == shapes
    rates = {"word": 0.7, "embedding": 0.6, "layer": 0.75, "weight": 0.5, "output": 0.8}
    logits, last, dropped = oracle(model, words, masks, state, rates, 0.6, 0.7)
    torch.testing.assert_close(made.outputs.logits, logits)
    torch.testing.assert_close(made.outputs.last, last)
    torch.testing.assert_close(made.outputs.dropped, dropped)

    targets = torch.randint(WORDS, (7, 3))
    score = task.score(made.outputs, Batch(words, targets, 21))
    chosen = torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1))
    assert score.loss.item() == pytest.approx(-chosen.mean().item())
    assert score.metric_sum.item() == pytest.approx(-chosen.sum().item())
    penalty = 2 * (dropped**2).mean() + ((last[1:] - last[:-1]) ** 2).mean()
    assert score.penalty.item() == pytest.approx(penalty.item())
    assert score.objective.item() == pytest.approx((score.loss + penalty).item())


def test_nothing_is_dropped_in_evaluation():
    task = task_of(word_dropout=0.5, embedding_dropout=0.5, output_dropout=0.5)
    model = model_of(task, dropout=0.5, weight_dropout=0.5).eval()
    words = torch.randint(WORDS, (5, 2))
    assert torch.equal(model(words).outputs.logits, model(words).outputs.logits)
    plain = model_of(task_of())
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(words).outputs.logits, model(words).outputs.logits)


def test_a_mask_is_the_same_at_all_times():
    x = torch.ones(50, 4, 200)
    dropped = locked_dropout(x, 0.25, True)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (dropped[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.06)
    # Each sequence has a mask of its own.
    assert not torch.equal(dropped[0, 0], dropped[0, 1])
    assert locked_dropout(x, 0.25, False) is x
    words = torch.randint(1000, (30, 20))
    kept = word_dropout(words, 1000, 0.1)
    assert kept.shape == (30, 20, 1)
    for word in words.unique():
        assert len(kept[words == word].unique()) == 1
    assert 0.03 < (kept == 0).float().mean().item() < 0.2


CELLS = {
    "LSTM": {},
    "MomentumLSTM": {"momentum": 0.6, "step_size": 0.6},
    "SRLSTM": {"step_size": 0.6, "restart": 3},
    "NAGLSTM": {"step_size": 0.6},
    "AdamLSTM": {"momentum": 0.6, "step_size": 0.6, "beta": 0.1},
    "RMSPropLSTM": {"step_size": 0.6, "beta": 0.9},
    "GRU": {},
    "MomentumGRU": {"momentum": 0.6, "step_size": 0.6, "velocity": "hidden"},
    "RNN": {},
    "DTRIV": {},
    "SRDTRIV": {"step_size": 0.3, "restart": 2},
}


@pytest.mark.parametrize("name", CELLS)
def test_pieces_are_the_whole(name):
    task = task_of()
    model = model_of(task, name, rule=CELLS[name]).eval()
    words = torch.randint(WORDS, (23, 3))
    whole = model(words)
    state, logits, first = None, [], 0
    for length in (1, 9, 5, 8):
        made = model(words[first : first + length], state)
        state, first = made.state, first + length
        logits.append(made.outputs.logits)
    torch.testing.assert_close(torch.cat(logits), whole.outputs.logits)
    for reached, expected in zip(state, whole.state, strict=True):
        torch.testing.assert_close(reached, expected)
    again = model(words[:1], state).outputs.logits
    assert not torch.allclose(again, model(words[:1]).outputs.logits)


def test_tied_or_not():
    task, words = task_of(), torch.randint(WORDS, (4, 2))
    model = model_of(task)
    assert model.head.weight is model.embedding.weight
    assert [layer.hidden_size for layer in model.layer.layers] == [6, 6, 5]
    assert [layer.input_size for layer in model.layer.layers] == [5, 6, 6]
    untied = model_of(task_of(tied=False))
    assert [layer.hidden_size for layer in untied.layer.layers] == [6, 6, 6]
    assert untied.head.weight.shape == (WORDS, 6)
    assert untied(words).outputs.logits.shape == (4, 2, WORDS)
    for tensor in (model.embedding.weight, untied.head.weight, untied.embedding.weight):
        assert 0.05 < tensor.abs().max() <= 0.1
    assert not untied.head.bias.any()
    with pytest.raises(RecipeError, match=r"language\.embedding_size = 5, got 6"):
        model_of(task, layers=1)
    assert len(model_of(task, layers=1, hidden=5).layer.layers) == 1


def test_every_layer_of_a_stack_is_initialised():
    model = model_of(task_of())
    initialise_as_paper(model.layer)
    for layer in model.layer.layers:
        size = layer.hidden_size
        assert torch.equal(layer.weight_hh_l0[:size], torch.eye(size).double())
        assert layer.bias_ih_l0.tolist() == [0.0] * size + [1.0] * size + [0.0] * 2 * size


def test_a_single_step_has_no_slowness():
    task = task_of(slowness_penalty=1.0)
    outputs = model_of(task)(torch.randint(WORDS, (1, 2))).outputs
    assert task.score(outputs, Batch(None, torch.randint(WORDS, (1, 2)), 2)).penalty is None


def batches_of(train=207, held_out=53, columns=4, eval_columns=3, seed=0, **options):
    random = torch.Generator().manual_seed(1)
    vocabulary = Vocabulary(("<unk>", "<eos>", *(str(number) for number in range(WORDS - 2))))
    parts = [torch.randint(2, WORDS, (size,), generator=random) for size in (train, held_out, held_out + 1)]
    given = LanguageOptions(embedding_size=5, **{"sequence_length": 7, **options})
    text = TextSplits(vocabulary, *parts)
    return text, TextBatches(text, Sampling(seed, columns, eval_columns), given, "cpu")


def read_through(batches):
    inputs = torch.cat([batch.inputs for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    return inputs.t(), targets.t()


@pytest.mark.parametrize("variable", [True, False])
def test_training_reads_every_word_once(variable):
    text, batches = batches_of(variable_lengths=variable)
    cut = set()
    for epoch in (1, 2):
        pieces = list(batches.training(epoch, 0))
        inputs, targets = read_through(pieces)
        assert torch.equal(targets.flatten(), text.train[:204])
        assert torch.equal(inputs.flatten(), torch.cat([torch.tensor([1]), text.train[:203]]))
        assert [batch.continues for batch in pieces] == [False] + [True] * (len(pieces) - 1)
        assert [batch.weight for batch in pieces] == [batch.targets.numel() for batch in pieces]
        assert [batch.lr_scale for batch in pieces] == [len(batch.inputs) / 7 for batch in pieces]
        cut.add(tuple(len(batch.inputs) for batch in pieces))
        for step in (0, 1, len(pieces) - 1):
            rest = list(batches.training(epoch, step))
            assert len(rest) == len(pieces) - step
            assert torch.equal(rest[0].inputs, pieces[step].inputs)
            assert rest[0].continues == pieces[step].continues
    assert len(cut) == (2 if variable else 1)
    if not variable:
        assert cut == {(7,) * 7 + (2,)}
        assert batches.steps_per_epoch == 8


def test_the_number_of_steps_is_about_what_is_said():
    _, batches = batches_of(train=40_000)
    counts = [len(list(batches.training(epoch, 0))) for epoch in range(1, 6)]
    assert sum(counts) / 5 == pytest.approx(batches.steps_per_epoch, rel=0.03)
    assert len(set(counts)) > 1


@pytest.mark.parametrize("eval_columns", [1, 3, 53, 500])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_every_held_out_word_counts_once(part, eval_columns):
    text, batches = batches_of(eval_columns=eval_columns)
    words = text.validation if part == "validation" else text.test
    for _ in range(2):
        pieces = list(batches.evaluation(part))
        inputs, targets = read_through(pieces)
        assert targets[targets != IGNORED].tolist() == words.tolist()
        assert inputs[targets != IGNORED].tolist() == [1, *words[:-1].tolist()]
        assert sum(batch.weight for batch in pieces) == len(words)
        assert all(batch.weight == (batch.targets != IGNORED).sum() for batch in pieces)


def test_perplexity_is_that_of_all_words():
    """Over batches of unequal weight, with padding."""
    task, (text, batches) = task_of(), batches_of(eval_columns=4)
    model = model_of(task).eval()
    total = weight = 0.0
    state = None
    for batch in batches.evaluation("test"):
        made = model(batch.inputs, state if batch.continues else None)
        state = made.state
        total += task.score(made.outputs, batch).metric_sum.item()
        weight += batch.weight
    # Each of the four columns read by itself, a word at a time.
    expected = 0.0
    whole = torch.cat([torch.tensor([1]), text.test])
    for first in range(0, 54, 14):
        logits = model(whole[first : min(first + 14, 54)].unsqueeze(1)).outputs.logits[:, 0]
        following = whole[first + 1 : min(first + 14, 54) + 1]
        expected -= torch.log_softmax(logits, -1)[range(len(following)), following].sum().item()
    assert weight == 54
    assert PERPLEXITY.of_mean(total / weight) == pytest.approx(math.exp(expected / 54), rel=1e-9)


def test_words_are_drawn_from_what_the_model_says():
    model = model_of(task_of())
    model.embedding.weight.data.mul_(30)
    read = [1, 4, 2]
    drawn = list(draw_words(model, read, 144, 0.7, seed=3))
    assert drawn == list(draw_words(model, read, 144, 0.7, seed=3))
    assert drawn != list(draw_words(model, read, 144, 0.7, seed=4))
    # What was drawn is what whole sequences say is likely: the mean surprise is the mean entropy.
    said = model(torch.tensor([*read, *drawn]).unsqueeze(1)).outputs.logits[2:-1, 0] / 0.7
    log_p = torch.log_softmax(said, -1)
    surprise = -log_p[range(144), drawn]
    entropy = -(log_p.exp() * log_p).sum(-1)
    assert surprise.mean().item() == pytest.approx(entropy.mean().item(), abs=4 * surprise.std().item() / 12)
    # Nearly cold, the likeliest word follows.
    cold = list(draw_words(model, read, 20, 1e-300, seed=0))
    said = model(torch.tensor([*read, *cold]).unsqueeze(1)).outputs.logits[2:-1, 0]
    assert said.argmax(-1).tolist() == cold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "text", "folder": "x"}, "data.vocabulary: 'text' needs it"),
        ({"name": "ptb", "vocabulary": 9}, "data.vocabulary: 'ptb' does not take it, got 9"),
        ({"name": "ptb"}, "language.embedding_size: a language model needs it"),
        ({"name": "digits", "language": {"tied": True}}, "language.tied: 'digits' is no text"),
    ],
)
def test_options_of_text_that_do_not_fit(options, message):
    with pytest.raises(RecipeError) as caught:
        build_task(**options)
    assert message in str(caught.value)
