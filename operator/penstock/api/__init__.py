"""What users write: the kinds of `penstock.dev/v1alpha1` as pydantic models. No I/O."""
