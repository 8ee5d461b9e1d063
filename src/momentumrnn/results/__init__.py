"""Run folders in; tables and plots out."""

from momentumrnn.results.plots import plot_convergence
from momentumrnn.results.summary import RunRecord, read_runs, summarise
from momentumrnn.results.table import print_table, to_markdown

__all__ = ["RunRecord", "plot_convergence", "print_table", "read_runs", "summarise", "to_markdown"]
