"""What a person runs against a cluster: `penstock explain`, `release`, `label-nodes`, `audit`."""
