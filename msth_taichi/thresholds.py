"""Numbers that a kernel and its reference must agree on."""

# optical depth at which a bin lets nothing through: exp(-1000) is zero even in float64, and sums stay finite
OPAQUE = 1000.0

# smallest accumulated weight that an expected depth is divided by
MIN_ACCUMULATION = 1e-10

# keeps the interlevel loss finite where the field has no weight; value of the released MSTH code
INTERLEVEL_EPSILON = 1e-7
