"""Run folders in; tables, plots and reports out."""

from momentumrnn.results.find import default_out, find_runs
from momentumrnn.results.plots import plot_convergence
from momentumrnn.results.report import Report, build_report
from momentumrnn.results.runs import RunRecord, read_runs
from momentumrnn.results.summary import summarise, summary_table
from momentumrnn.results.table import Table, print_table, to_markdown
from momentumrnn.results.write import check_folder, make_folder, write_report

__all__ = [
    "Report",
    "RunRecord",
    "Table",
    "build_report",
    "check_folder",
    "default_out",
    "find_runs",
    "make_folder",
    "plot_convergence",
    "print_table",
    "read_runs",
    "summarise",
    "summary_table",
    "to_markdown",
    "write_report",
]
