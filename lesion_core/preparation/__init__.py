"""From downloads to cohorts: alignment, brain masks, bias."""
