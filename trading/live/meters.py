"""What the engine counts about itself, in Prometheus' terms; its heartbeat carries the figures to whoever is asked."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

QUICK = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)

REGISTRY = CollectorRegistry()
BARS = Counter("algotrader_bars", "Minute bars that came through the stream.", registry=REGISTRY)
BAR_LAG = Histogram(
    "algotrader_bar_lag_seconds", "Market time from a bar's end to its arrival.", buckets=SLOW, registry=REGISTRY
)
DECISIONS = Counter(
    "algotrader_decisions", "Signals decided, by the rule that refused them.", ["refused_by"], registry=REGISTRY
)
RETRIES = Counter("algotrader_broker_retries", "Calls to the broker that were repeated.", ["reason"], registry=REGISTRY)
LOST_STREAMS = Counter(
    "algotrader_streams_lost", "Streams that were lost, each to connect again.", ["stream"], registry=REGISTRY
)
WRITE_SECONDS = Histogram(
    "algotrader_ledger_seconds",
    "Reads and writes of the ledger, by function.",
    ["work"],
    buckets=QUICK,
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("algotrader_engine_queue_depth", "Events that wait to be worked off.", registry=REGISTRY)
STREAM_UP = Gauge("algotrader_stream_up", "Whether a stream is connected.", ["stream"], registry=REGISTRY)
ProcessCollector(namespace="algotrader_engine", registry=REGISTRY)  # memory, processor time, open files


def text() -> str:
    """All figures in Prometheus' text format."""
    return generate_latest(REGISTRY).decode()
