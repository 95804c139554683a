"""From a kernel call to arrays: prepared once for each form of call, run, and handed back."""
