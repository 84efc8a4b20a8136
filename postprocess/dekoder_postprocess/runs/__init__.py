# SPDX-License-Identifier: Apache-2.0
"""Many runs at once: their table, which settings mattered, the page of all of them, and exports. A folder is the state;
nothing is registered anywhere."""
