# Counters of the coordinator that faults move: a disturbed run reads them before and after, and over all runs each must have moved.
counters=(stale fenced duplicate recomputed overtaken adopted promoted respread rolled_back fallback audited disputed quarantined parked refused damaged
    bad_frames)
