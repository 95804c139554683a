"""``nki.experimental``: where the vendor's pages also have loops on the device.

Source: SDK API page ``nki.isa`` (register_load).
"""

from nki.language.iteration import while_loop as _while_loop
from nki_isa.tensor.kinds import checked

while_loop = checked(_while_loop, "nki.experimental.")

__all__ = ["while_loop"]
