#!/usr/bin/env bash
# The simulator's short form: STEER_SIM_SEEDS (1..5000), each run twice; every fault must have struck and every counter
# moved. A seed that fails: build/release/tests/sim/steer_sim --seed N --trace
set -u
cd "$(dirname "$0")/../.."
sim=${STEER_SIM:-build/release/tests/sim/steer_sim}
exec "$sim" --seeds "${STEER_SIM_SEEDS:-1..5000}" --twice --all-struck --jobs "$(nproc)"
