"""cmrvlm: a vision-language model for cardiac MRI, trained, evaluated and applied as one experiment framework."""

import logging

# PEFT imports bitsandbytes where it is installed, which then warns of kernels that nothing here asks for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
