# SPDX-License-Identifier: Apache-2.0
"""Sweeps: trials of a base configuration with settings drawn from ranges, by any number of workers. A folder is the state;
a trial is an ordinary run."""
