"""Triton's interpreter with all programs of a launch under way at once, as on a GPU."""

import inspect
import random
import threading
from contextlib import contextmanager

from triton.runtime import interpreter


class StuckError(Exception):
    """Programs wait for one another and none goes on."""


class _Schedule:
    """Lets one program run at a time, and another one, drawn at random, after every atomic operation."""

    def __init__(self, places, seed, most):
        self._turns = {place: threading.Semaphore(0) for place in places}
        self._running = list(places)
        self._random = random.Random(seed)
        self._left = most
        self.errors = []

    def run(self, program):
        threads = [threading.Thread(target=self._one, args=(program, place)) for place in self._turns]
        for thread in threads:
            thread.start()
        self._give_turn()
        for thread in threads:
            thread.join()

    def switch(self):
        self._left -= 1
        if self.errors or self._left < 0:
            raise StuckError
        place = interpreter.interpreter_builder.grid_idx
        self._give_turn()
        self._take_turn(place)

    def _one(self, program, place):
        self._take_turn(place)
        try:
            program()
        except Exception as error:
            self.errors.append(error)
        self._running.remove(place)
        self._give_turn()

    def _give_turn(self):
        if self._running:
            self._turns[self._random.choice(self._running)].release()

    def _take_turn(self, place):
        self._turns[place].acquire()
        interpreter.interpreter_builder.set_grid_idx(*place)


@contextmanager
def programs_at_once(monkeypatch, seed, most=10_000):
    """Run every launch inside the block this way, with at most so many atomic operations."""
    atomic = interpreter.interpreter_builder.create_atomic_rmw
    schedules = []

    def launch(executor, *args, **kwargs):
        names = inspect.getfullargspec(executor.fn).args
        given = inspect.getcallargs(executor.fn, *args, **{k: v for k, v in kwargs.items() if k in names})
        given = {
            name: value if name in executor.constexprs else interpreter._implicit_cvt(value)
            for name, value in given.items()
        }
        columns, groups = executor.grid
        interpreter.interpreter_builder.set_grid_dim(columns, groups, 1)
        schedules.append(_Schedule([(x, y, 0) for x in range(columns) for y in range(groups)], seed, most))
        scope = interpreter._patch_lang(executor.fn)
        try:
            schedules[-1].run(lambda: executor.fn(**given))
        finally:
            scope.restore()
        if schedules[-1].errors:
            raise schedules[-1].errors[0]

    def switching(*args):
        result = atomic(*args)
        schedules[-1].switch()
        return result

    with monkeypatch.context() as patched:
        patched.setattr(interpreter.GridExecutor, "__call__", launch)
        patched.setattr(interpreter.interpreter_builder, "create_atomic_rmw", switching, raising=False)
        yield
