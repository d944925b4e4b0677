"""cmrvlm: a vision-language model for cardiac MRI, trained, evaluated and applied as one experiment framework."""
