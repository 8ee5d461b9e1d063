"""Pictures of vanishing gradients: Fig. 2, and what explains it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from momentumrnn.analysis.history import GradientHistory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["gradient_norms_figure", "plot_gradient_norms", "plot_singular_values", "plot_spectrum"]

# Of Okabe and Ito, told apart by colour-blind readers; with the marks, in black and white too.
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKS = ("o", "^", "s", "D", "v", "P", "X")
# More would make all that is not vanishing one colour.
_DECADES = 12


def plot_gradient_norms(
    histories: Mapping[str, GradientHistory], path: str | Path, title: str = ""
) -> list[Path]:
    """Draw Fig. 2: ‖∂L/∂h_t‖₂ as a heat map over iterations and steps, a panel for each model.

    The logarithmic colour scale is one for all panels; it ends twelve decades below the largest norm, and
    what is smaller still has a colour of its own.

    Args:
        histories: what was recorded, by the name to stand above its panel; the baseline first.
        path: where, without a suffix.
        title: above all.

    Returns:
        The files, PNG and SVG.

    Raises:
        ValueError: there is no history, one is empty, or all norms are zero.
        ImportError: matplotlib is not installed; it comes with the extra ``experiments``.
    """
    return _write(gradient_norms_figure(histories, title), path)


def gradient_norms_figure(histories: Mapping[str, GradientHistory], title: str = "") -> Figure:
    """Return the figure of ``plot_gradient_norms``."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    if not histories:
        raise ValueError("plot_gradient_norms: expected at least one history, got none")
    for name, history in histories.items():
        if not history.norms:
            raise ValueError(f"plot_gradient_norms: nothing was recorded in {name!r}")
    matrices = {name: history.matrix() for name, history in histories.items()}
    values = torch.cat([matrix.flatten() for matrix in matrices.values()])
    positive = values[values > 0]
    if not len(positive):
        raise ValueError("plot_gradient_norms: expected some gradient that is not zero")
    top = positive.max().item()
    bottom = max(positive.min().item(), top * 10.0**-_DECADES)
    # One value alone has no scale.
    bottom = min(bottom, top / 10)
    scale = LogNorm(bottom, top)
    colours = colormaps["viridis"].with_extremes(under="#000000", bad="#ffffff")

    figure = _figure((1.2 + 3.9 * len(matrices), 4.2))
    panels: Any = figure.subplots(1, len(matrices), squeeze=False, sharey=True)[0]
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        image = axes.pcolormesh(
            _edges(histories[name].iterations).numpy(),
            [k - 0.5 for k in range(matrix.shape[1] + 1)],
            # A logarithm would leave zero out, as if nothing had been recorded.
            matrix.where(matrix != 0, bottom / 10).t().numpy(),
            norm=scale,
            cmap=colours,
            # As vectors every cell would be a path of its own.
            rasterized=True,
        )
        axes.set_title(name, fontsize=12)
        axes.set_xlabel("iteration", fontsize=12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0].set_ylabel("time step t", fontsize=12)
    below = bool((values < bottom).any())
    bar = figure.colorbar(image, ax=list(panels), extend="min" if below else "neither", pad=0.02)
    bar.set_label("‖∂L/∂h$_t$‖$_2$", fontsize=12)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def plot_spectrum(spectra: Mapping[str, Tensor], path: str | Path, title: str = "") -> list[Path]:
    """Draw the eigenvalues of U in the complex plane, with the unit circle.

    Args:
        spectra: by name, what ``recurrence_spectrum`` returned; of several gates each is drawn.
        path: where, without a suffix.
        title: above the plot.

    Returns:
        The files, PNG and SVG.

    Raises:
        ValueError: there is no spectrum.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.ticker import MultipleLocator

    if not spectra:
        raise ValueError("plot_spectrum: expected at least one spectrum, got none")
    figure = _figure((6.6, 4.6))
    axes = figure.add_subplot()
    angles = torch.linspace(0, 2 * torch.pi, 257, device="cpu")
    axes.plot(angles.cos().numpy(), angles.sin().numpy(), color="0.6", linewidth=1, zorder=0)
    rows = [
        (name if len(values) == 1 else f"{name}, gate {gate + 1}", row)
        for name, values in spectra.items()
        for gate, row in enumerate(torch.atleast_2d(values))
    ]
    for k, (label, row) in enumerate(rows):
        axes.plot(
            row.real.numpy(),
            row.imag.numpy(),
            linestyle="none",
            marker=_MARKS[k % len(_MARKS)],
            markersize=5,
            markerfacecolor="none",
            markeredgecolor=_COLOURS[k % len(_COLOURS)],
            label=label,
        )
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MultipleLocator(0.5))
    axes.yaxis.set_major_locator(MultipleLocator(0.5))
    axes.set_xlabel("real part", fontsize=12)
    axes.set_ylabel("imaginary part", fontsize=12)
    _finish(axes, title or "eigenvalues of U, and the unit circle")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=11)
    return _write(figure, path)


def plot_singular_values(values: Mapping[str, Tensor], path: str | Path, title: str = "") -> list[Path]:
    """Draw the singular values of ∂h_T/∂h_t against T - t, a panel for each layer.

    The median is a line, the middle half of them a dark band, all of them a light one. Values below a
    Jacobian's rounding, n · 2.2e-16 of its largest, are not drawn.

    Args:
        values: by name, what ``state_jacobian_singular_values`` returned for every t, (T + 1, n).
        path: where, without a suffix.
        title: above all.

    Returns:
        The files, PNG and SVG.

    Raises:
        ValueError: there is nothing to draw, or values of a single t.
        ImportError: matplotlib is not installed.
    """
    if not values:
        raise ValueError("plot_singular_values: expected singular values of at least one layer, got none")
    for name, singular in values.items():
        if singular.dim() != 2:
            raise ValueError(
                f"plot_singular_values: expected (T + 1, n) in {name!r}, the values of every t; "
                f"got shape {tuple(singular.shape)}"
            )
    figure = _figure((1.8 + 3.9 * len(values), 4.2))
    panels: Any = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    for axes, (name, singular) in zip(panels, values.items(), strict=True):
        shown = singular.flip(0).cpu().double()
        rounding = shown.shape[1] * torch.finfo(torch.float64).eps * shown[:, :1]
        quartiles = shown.clamp(min=rounding).quantile(shown.new_tensor([0, 0.25, 0.75, 1]), dim=1)
        low, lower, upper, high = quartiles.numpy()
        median = shown.where(shown > rounding, 0).quantile(0.5, dim=1)
        distance = range(len(shown))
        axes.fill_between(distance, low, high, color=_COLOURS[2], alpha=0.15, linewidth=0, label="all")
        axes.fill_between(
            distance, lower, upper, color=_COLOURS[2], alpha=0.35, linewidth=0, label="middle half"
        )
        # Zero has no place on a logarithmic axis.
        axes.plot(distance, median.where(median > 0, torch.nan).numpy(), color=_COLOURS[0], label="median")
        axes.set_yscale("log")
        axes.set_xlim(0, max(1, len(shown) - 1))
        axes.set_xlabel("T − t", fontsize=12)
        _finish(axes, name)
    panels[0].set_ylabel("singular values of ∂h$_T$/∂h$_t$", fontsize=12)
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=11)
    if title:
        figure.suptitle(title, fontsize=12)
    return _write(figure, path)


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(axes: Any, title: str) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=12)


def _edges(iterations: list[int]) -> Tensor:
    """Return where the cells of the heat map begin and end: half way between two recorded iterations."""
    at = torch.tensor(iterations, dtype=torch.float64, device="cpu")
    if len(at) == 1:
        return torch.cat([at - 0.5, at + 0.5])
    between = (at[1:] + at[:-1]) / 2
    return torch.cat([2 * at[:1] - between[:1], between, 2 * at[-1:] - between[-1:]])


def _write(figure: Figure, path: str | Path) -> list[Path]:
    # Not with_suffix: a dot in the name, as in "momentum-0.6", does not begin a suffix.
    files = [Path(f"{path}.png"), Path(f"{path}.svg")]
    for file in files:
        # Tight: a legend with long names would be cut off.
        figure.savefig(file, dpi=150, bbox_inches="tight")
    return files
