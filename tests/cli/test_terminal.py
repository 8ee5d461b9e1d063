"""What reaches the terminal, and what closed streams do."""

import contextlib
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from momentumrnn.cli import main
from momentumrnn.cli.terminal import escape_controls, escaped_streams, make_console
from momentumrnn.training import load_recipe

pytestmark = pytest.mark.usefixtures("elsewhere")

RED, TITLE, CSI = "\x1b[31m", "\x1b]0;owned\x07", "\x9b2J"
COMMAND = [sys.executable, "-m", "momentumrnn.cli"]


@pytest.mark.parametrize("code", [*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x202E, 0x2066])
def test_every_control_character_is_escaped(code):
    shown = escape_controls(f"a{chr(code)}b")
    assert shown == "a" + (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}") + "b"
    assert escape_controls("μ – é 𝄞\t\n") == "μ – é 𝄞\t\n"


@pytest.mark.parametrize(
    "words",
    [
        [f"{RED}train"],
        ["train", RED],
        ["train", f"./{RED}.toml"],
        ["train", "digits-lstm", "--set", f"optimizer.{RED}=3"],
        ["train", "digits-lstm", "--set", f"optimizer.lr={TITLE}"],
        ["train", "digits-lstm", "--set", f"{RED}.lr=3"],
        ["train", "digits-lstm", "--set", 'model.name="\\u001b[31m"'],
        ["train", "digits-lstm", "--strategy", RED],
        ["train", "mnist-lstm-128", "--data-folder", RED],
        ["train", "digits-lstm", f"--{RED}"],
        ["sweep", "digits-lstm", "--over", f"optimizer.lr={CSI},2"],
        ["reproduce", RED],
        ["reproduce", "small", "--plan", "--only", RED],
        ["report", CSI],
        ["recipes", RED],
        ["generate", TITLE],
        ["bench", "--models", RED],
        ["data", "check", RED],
        ["data", "list", "--data-folder", RED],
    ],
)
def test_words_of_the_command_line_are_shown_and_not_obeyed(capsys, words):
    with contextlib.suppress(SystemExit):
        main(words)
    told = capsys.readouterr()
    shown = told.out + told.err
    assert not set(shown) & {"\x1b", "\x9b", "\x07"}
    assert "\\x1b" in shown or "\\x9b" in shown


def test_names_of_run_folders_and_keys_of_recipes(capsys, tmp_path):
    run = tmp_path / "runs" / f"{RED}[bold]x[/]"
    words = ["--set", "model.hidden_size=4", "training.epochs=1", "training.batch_size=512", "--threads", "1"]
    assert main(["train", "digits-lstm", "--out", str(run), *words]) == 0
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    recipe = load_recipe("digits-lstm").to_toml().replace("[model]\n", '[model]\n"\\u001b[2Jname" = 3\n')
    (bad / "recipe.toml").write_text(recipe)
    assert main(["report", "runs"]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "\\x1b[31m[bold]x[/]" in told.out
    assert "\\x1b[2Jname" in told.err


def test_a_console_keeps_its_own_codes_and_shows_those_of_its_texts():
    terminal = io.StringIO()
    before = sys.stdout
    sys.stdout = terminal
    try:
        with escaped_streams():
            console = make_console(force_terminal=True)
            print(f"printed {RED}")
            console.print(f"text {RED}", style="bold", highlight=False)
            console.print(Text(f"object {RED}"))
            table = Table("name")
            table.add_row(f"[bold]{TITLE}")
            console.print(table)
    finally:
        sys.stdout = before
    shown = terminal.getvalue()
    assert "\x1b[1m" in shown
    assert RED not in shown
    assert TITLE not in shown
    for told in ("printed \\x1b[31m", "text \\x1b[31m", "object \\x1b[31m", "[bold]\\x1b]0;owned\\x07"):
        assert told in shown


CLOSED = """
import os, sys
for descriptor in map(int, sys.argv[1].split()): os.close(descriptor)
os.execv(sys.argv[2], sys.argv[2:])
"""
TRAIN = ["train", "digits-lstm", "--set", "model.hidden_size=4", "training.epochs=1", "--out", "run"]


@pytest.mark.parametrize(
    ("closed", "words", "expected"),
    [
        ("0", ["recipes"], 0),
        ("1", ["data", "list"], 0),
        ("2", ["recipes"], 0),
        ("1 2", ["--help"], 0),
        ("1", ["trian"], 2),
        ("2", ["trian"], 2),
        ("0 1 2", TRAIN, 0),
    ],
)
def test_closed_streams_end_in_no_traceback_and_take_no_file(tmp_path, closed, words, expected):
    command = [sys.executable, "-c", CLOSED, closed, *COMMAND, *words]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == expected, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    # What is printed went into none of the files that were opened meanwhile.
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"everything is in" not in written
    assert bool(written) == (words == TRAIN)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_behind_the_output_is_an_error():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "data", "list"], stdout=full, stderr=subprocess.PIPE)
        assert subprocess.run([*COMMAND, "trian"], stderr=full).returncode == 2
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: [Errno 28]")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["trian"], ["train", "--no-such-option"], ["recipes"]]
)
def test_what_needs_no_torch_does_not_import_it(tmp_path, words):
    # As the script that pip installs begins.
    script = tmp_path / "momentumrnn"
    script.write_text("import sys\nfrom momentumrnn.cli import main\nsys.exit(main())\n")
    probe = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    (tmp_path / "sitecustomize.py").write_text(probe)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for command in ([sys.executable, str(script)], COMMAND):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
        assert done.stderr.splitlines()[-1] == "False", done.stderr
        # Generous: a process on a busy machine; torch alone takes longer.
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.0


def test_the_command_has_every_public_name_of_the_package(tmp_path):
    script = tmp_path / "momentumrnn"
    script.write_text(
        "import sys, momentumrnn\n"
        "assert 'torch' not in sys.modules\n"
        "lazy = {name: getattr(momentumrnn, name) for name in momentumrnn.__all__}\n"
        "assert not hasattr(momentumrnn, 'no_such_name')\n"
        "from momentumrnn import LSTM, rules, explain\n"
        "import torch\n"
        "assert isinstance(LSTM(1, 2, rule=rules.HeavyBall(0.5, 0.5)), torch.nn.Module)\n"
        "assert callable(explain) and lazy['LSTM'] is LSTM\n"
    )
    subprocess.run([sys.executable, str(script)], check=True)
    # Any other program registers the operators at once, before or after torch itself is imported.
    code = "import momentumrnn, sys; sys.modules['torch'].ops.momentumrnn.recurrence"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recipes_are_listed_one_per_line(capsys):
    from momentumrnn.training import recipe_names

    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(load_recipe(line.split()[0]).model.name in line for line in lines)
    assert main(["recipes", "TABLE1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert lines[0].endswith("  AdamLSTM with 256 hidden units on mnist (cost, fig4, table1)")
    assert main(["recipes", "no such"]) == 2
    assert "`momentumrnn recipes` lists all of them" in capsys.readouterr().err


def test_a_wrong_name_of_a_recipe_shows_few_names_and_how_to_list_all(capsys):
    from momentumrnn.training import recipe_names

    for given in ("mnist-lsmt-128", "mnist", "nothing like it"):
        assert main(["train", given]) == 2
        told = capsys.readouterr().err
        assert "`momentumrnn recipes` lists all of them" in told
        assert sum(name in told for name in recipe_names()) <= 5
    assert main(["train", "mnist-lsmt-128"]) == 2
    assert "did you mean 'mnist-lstm-128'? Other names like it are " in capsys.readouterr().err
