"""Rules that instructions share: constructors of :class:`~nki_isa.ir.constraint.Constraint` rows.

An instruction states ``constraints = rules(memory("dst", SBUF, PSUM), ...)``. Each
constructor takes field names and limits; the row it returns says in its message
the value received and the limit. A row looks only at operands of the kind it
speaks of: an operand of a wrong kind is the business of
:data:`~nki_isa.constraints.operands.OPERAND_KINDS`, an absent optional one of no rule.
"""
