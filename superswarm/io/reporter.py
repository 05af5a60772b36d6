"""What a program tells its owner: each event goes to the log, to the counters, and into `/health`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from superswarm.io.logs import logger
from superswarm.io.web import Health, Status

WARNINGS = frozenset(
    {
        "refused",
        "trainer refused",
        "left out",
        "not admitted",
        "not yet admitted",
        "letter refused",
        "no mail",
        "result not taken",
    }
)
TOLD = ("run", "attempt", "round", "members", "of")  # fields that /health repeats: counts and names


class Reporter:
    """Call it with an event and its fields. What must not leave a TEE never gets here."""

    def __init__(self, program: str) -> None:
        self.registry = CollectorRegistry()
        self._log = logger(f"superswarm.{program}")
        self._events = Counter("superswarm_events", "Events, by name.", ["event"], registry=self.registry)
        self._round = Gauge("superswarm_round", "The round that is under way or was last.", registry=self.registry)
        self._status: Status = "starting"
        self._details: dict[str, object] = {}

    def __call__(self, event: str, **fields: object) -> None:
        write = self._log.warning if event in WARNINGS else self._log.info
        write(event, **fields)
        self._events.labels(event).inc()
        if isinstance(number := fields.get("round"), int):
            self._round.set(number)
        self._details |= {"last_event": event} | {name: fields[name] for name in TOLD if name in fields}

    def ready(self) -> None:
        """The program has started and waits for work."""
        self._status = "ok"
        self("ready")

    def health(self) -> Health:
        return Health(self._status, dict(self._details))
