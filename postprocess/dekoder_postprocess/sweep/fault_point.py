# SPDX-License-Identifier: Apache-2.0
"""Places where a test can let the process die."""
import os
import signal


def fault_point(name):
    """DEKODER_FAULT=<name> raises SIGKILL here, as in the program dekoder (src/io/files/fault_point.hpp). Names:
    sweep:claim_written, sweep:claimed, sweep:began, sweep:started, sweep:trained, sweep:outcome_written, sweep:outcome,
    sweep:base_written, sweep:base, sweep:plan_written, sweep:planned, sweep:definition_written."""
    if os.environ.get("DEKODER_FAULT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
