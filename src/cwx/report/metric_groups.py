"""Metrics in groups: metrics of one pattern belong on one card or chart."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from cwx.report.contribution_metrics import CONTRIBUTION_PATTERNS
from cwx.report.metric_catalogue import METRIC_PATTERNS, MetricPattern
from cwx.report.metric_labels import SOURCES, network_column, network_label
from cwx.report.whole_test_set_metrics import WHOLE_TEST_SET_PATTERNS


@dataclass(frozen=True)
class Metric:
    """One metric of a group.

    Attributes:
        name: the flat name.
        label: its row in the group.
        column: its column in the group; empty if the group has no columns.
    """

    name: str
    label: str
    column: str = ""

    @property
    def text(self) -> str:
        return ", ".join(part for part in (self.label, self.column) if part)


@dataclass(frozen=True)
class MetricGroup:
    """Metrics that are presented together.

    Attributes:
        fraction: whether the values are fractions in 0-1.
        better: ``higher``, ``lower``, or empty if neither is better.
        metrics: in display order.
        paper_name: the name under which the paper's value of a metric stands, if not its own.
    """

    title: str
    meaning: str
    fraction: bool
    better: str
    metrics: tuple[Metric, ...]
    paper_name: Callable[[str], str] = str

    @property
    def columns(self) -> list[str]:
        """The columns; a single empty one if there are none."""
        return list(dict.fromkeys(metric.column for metric in self.metrics))

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(metric.label for metric in self.metrics))

    def paper_value(self, name: str, paper: Mapping[str, float]) -> float | None:
        """The paper's value of the metric called `name`."""
        return paper.get(name, paper.get(self.paper_name(name)))

    def with_label(self, label: str) -> "MetricGroup":
        """The metrics of one label, labelled by their columns."""
        row = (m for m in self.metrics if m.label == label)
        metrics = tuple(replace(m, label=m.column, column="") for m in row)
        return replace(self, title=f"{self.title}: {label}", metrics=metrics)

    def with_column(self, column: str) -> "MetricGroup":
        """The metrics of one column."""
        metrics = tuple(replace(m, column="") for m in self.metrics if m.column == column)
        return replace(self, title=f"{self.title}: {column}", metrics=metrics)


def group_metrics(
    values: Mapping[str, float], method_titles: Mapping[str, str]
) -> list[MetricGroup]:
    """Groups of the metrics that the catalogue knows, in its order; tables have the others.

    Args:
        values: of the metrics, by flat name.
        method_titles: display names of methods.
    """
    return [
        group
        for pattern in (*METRIC_PATTERNS, *WHOLE_TEST_SET_PATTERNS, *CONTRIBUTION_PATTERNS)
        if not (pattern.unless and any(name.startswith(pattern.unless) for name in values))
        for group in _groups_of_pattern(pattern, values, method_titles)
    ]


def _groups_of_pattern(
    pattern: MetricPattern, values: Mapping[str, float], method_titles: Mapping[str, str]
) -> Iterable[MetricGroup]:
    names = SOURCES | dict(method_titles)
    by_title: dict[str, list[Metric]] = {}
    for name, value in values.items():
        match = re.fullmatch(pattern.pattern, name)
        if match is None or pattern.hidden(value) or pattern.in_place_of(name) in values:
            continue
        parts = match.groupdict()
        of, label, column = (parts.get(key) or "" for key in ("of", "label", "column"))
        title = pattern.title.format(of=names.get(of, network_label(of)))
        to_label = network_label if pattern.label is str else pattern.label
        to_column = network_column if pattern.column is str else pattern.column
        has_column = parts.get("column") is not None
        metric = Metric(
            name=name,
            label=names.get(label) or to_label(label),
            column=(names.get(column) or to_column(column)) if has_column else "",
        )
        by_title.setdefault(title, []).append(metric)
    for title, metrics in by_title.items():
        yield _metric_group(pattern, title, metrics)


def _metric_group(pattern: MetricPattern, title: str, metrics: list[Metric]) -> MetricGroup:
    if {metric.column for metric in metrics} <= {"top-1"}:
        # A single column of top-1 accuracies needs no head.
        metrics = [replace(metric, column="") for metric in metrics]
    return MetricGroup(
        title, pattern.meaning, pattern.fraction, pattern.better, tuple(metrics), pattern.paper_name
    )


def merge_metrics(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """All metric names of the runs in order of first appearance, each with its first value.

    Its first value that is not 0, if it has any: a metric that is hidden at 0 is shown if one of
    the runs shows it.
    """
    merged: dict[str, float] = {}
    for metrics in runs:
        for name, value in metrics.items():
            if not merged.get(name):
                merged[name] = value
    return merged
