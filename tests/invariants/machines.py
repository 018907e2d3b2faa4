"""How the machines of Hypothesis run: a few times and always alike, or with `CREDITS_EXAMPLES=2000` so many times, and
other ones each time."""

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

EXAMPLES = int(os.environ.get("CREDITS_EXAMPLES", "0"))


def run(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    """So many times, of so many steps each, unless more of them are asked for."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if not EXAMPLES else list(Phase),
        ),
    )
