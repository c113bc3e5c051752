"""`python -m xzepr.processes.child`: what a parent starts. Takes its orders and becomes a web worker or the relay."""

import gc
import sys
from typing import Final

from xzepr.processes.orders import Parent
from xzepr.telemetry import configure_logging

GC_THRESHOLDS: Final = (20_000, 20, 20)


def main() -> int:
    """Exit code of the process: 0 after a drain, 1 when it could not serve."""
    parent = Parent()
    try:
        orders = parent.orders()
    except EOFError:
        return 1
    parent.watch()
    settings = orders.decoded_settings
    configure_logging(settings.telemetry.log_level, json_logs=settings.telemetry.json_logs)
    if orders.role == "web":
        from xzepr.processes.web import run_web

        run = run_web
    else:
        from xzepr.processes.relay import run_relay

        run = run_relay
    # What is loaded now stays: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    # Requests and facts leave hardly any cycles: looking for them every 700 objects, as the default has it, finds nothing a thousand times a second.
    gc.set_threshold(*GC_THRESHOLDS)
    return run(orders, settings, parent.say_ready)


if __name__ == "__main__":
    sys.exit(main())
