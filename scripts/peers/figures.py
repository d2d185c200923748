"""What is kept of a comparison, and the table made of it."""

import dataclasses
import statistics

# How the two sides are divided so that the figure asked for reads naturally.
RATIOS = {
    "rate": ("≥", lambda ours, peer: ours / peer),
    "time": ("≥", lambda ours, peer: peer / ours),
    "size": ("≤", lambda ours, peer: ours / peer),
}


def number(value):
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread_of(values):
    """Range in parts of the median."""
    return (max(values) - min(values)) / statistics.median(values) if values else None


@dataclasses.dataclass
class Comparison:
    """One row of the table: values per round of ours and of every variant of the peer."""

    name: str
    unit: str
    kind: str
    asked: float  # None: nothing
    ours: list = dataclasses.field(default_factory=list)
    peers: dict = dataclasses.field(default_factory=dict)
    probes: list = dataclasses.field(default_factory=list)
    failed: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)

    def best(self):
        """The variant of the peer that serves it best, None if none ran."""
        pick = max if self.kind == "rate" else min
        medians = {name: statistics.median(values) for name, values in self.peers.items() if values}
        return pick(medians, key=medians.get) if medians else None

    def ratios(self):
        divide = RATIOS[self.kind][1]
        best = self.best()
        return [divide(a, b) for a, b in zip(self.ours, self.peers[best])] if best else []

    def row(self):
        sign = RATIOS[self.kind][0]
        reached = None
        ratio = "not measured"
        if self.ours and self.ratios():
            ratios = self.ratios()
            middle = statistics.median(ratios)
            ratio = f"**{middle:.2f}** ({min(ratios):.2f} – {max(ratios):.2f})"
            if self.asked is not None:
                reached = middle >= self.asked if sign == "≥" else middle <= self.asked
        verdict = {None: "", True: ", reached", False: ", missed"}[reached]
        asked = f"{sign} {self.asked:g}" if self.asked else ""
        ours = f"{number(statistics.median(self.ours))} {self.unit}" if self.ours else "–"
        return (
            f"| {self.name} | {ours} | {self.peer_text()} | {ratio} "
            f"| {asked}{verdict} | {self.probe_text()} |"
        )

    def peer_text(self):
        best = self.best()
        texts = []
        for name in sorted(self.peers, key=lambda name: name != best):
            values = self.peers[name]
            if values:
                texts.append(f"{name} {number(statistics.median(values))}")
        texts += [f"{name} failed" for name in self.failed]
        return "; ".join(texts) or "–"

    def probe_text(self):
        spread = spread_of(self.probes)
        if spread is None:
            return "–"
        return f"{number(statistics.median(self.probes))} ± {50 * spread:.0f} %"


@dataclasses.dataclass
class Share:
    """A row without a peer: a share of what the machine can do."""

    name: str
    asked: float
    ours: list = dataclasses.field(default_factory=list)
    probes: list = dataclasses.field(default_factory=list)
    failed: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)

    def row(self):
        if not self.ours:
            return f"| {self.name} | – | | not measured | ≥ {100 * self.asked:.0f} % | – |"
        middle = statistics.median(self.ours)
        verdict = "reached" if middle >= self.asked else "missed"
        low, high = 100 * min(self.ours), 100 * max(self.ours)
        probe = Comparison.probe_text(self)
        return (
            f"| {self.name} | **{100 * middle:.0f} %** ({low:.0f} – {high:.0f}) | | "
            f"| ≥ {100 * self.asked:.0f} %, {verdict} | {probe} |"
        )


def table_of(results):
    lines = [
        "| measure | mmrun | peer, best first | ratio, median (range) | asked | probe, GFLOP/s |",
        "| --- | ---: | --- | ---: | --- | ---: |",
    ]
    lines += [result.row() for result in results]
    notes = []
    for result in results:
        notes += [f"{result.name}: {note}" for note in result.notes]
        notes += [f"{result.name}: {name} failed: {why}" for name, why in result.failed.items()]
    text = "\n".join(lines) + "\n"
    return text + "\n" + "\n".join(f"- {note}" for note in notes) + "\n" if notes else text
