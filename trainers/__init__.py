"""What every rank runs: data, model, the one loop and its tasks. Started by the launcher, never imported by it."""
