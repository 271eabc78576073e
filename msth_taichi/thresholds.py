"""Numbers that a kernel and its reference must agree on."""

# optical depth at which a bin lets nothing through: exp(-1000) is zero even in float64, and sums stay finite
OPAQUE = 1000.0

# what a ray must let through, and stop, for the entropy of its opacity to have a slope
CLEAR = 1e-4

# smallest accumulated weight that an expected depth is divided by
MIN_ACCUMULATION = 1e-10

# keeps the interlevel loss finite where the field has no weight; value of the released MSTH code
INTERLEVEL_EPSILON = 1e-7

# a mask this close to 0 or 1 counts as it: the other table's share would vanish in the rounding of float16
# features, so that table is neither read nor written
SATURATED = 2.0**-11

# fixed-point units per one of a mask gradient that is summed as 64-bit integers: 2^27 is then the largest sum, and
# what a sample adds to the mean over a batch of rays, about 1e-8 where the loss is not scaled, still counts
MASK_UNITS = 2.0**36

# fixed-point units that a table gradient's sum may reach: 32 bits signed, and room for rounding
FIXED_LIMIT = 2.0**30

# logit of no density at all: exp of it is zero even in float64
EMPTY_LOGIT = -1e4

# beyond this logit a sample is opaque at any distance that float32 can tell apart
MAX_LOGIT = 30.0

# the gradient of exp stops growing here, so that a single sample cannot blow up a step (released MSTH code, after
# Instant-NGP)
MAX_GRADIENT_LOGIT = 15.0

# colours between sigmoid(-6) and sigmoid(6), 0.6 / 255 from black and white, are free; a logit beyond is pulled back
# by this share of the excess. Before a plain backdrop all pixels ask for one colour: Adam's momentum takes the logits
# of all samples to -200 in some forty steps, where the sigmoid has no gradient left to ever lead back
COLOR_LIMIT = 6.0
COLOR_PULL = 1e-4

# added to both variances of a correlation: with a mask that is the same everywhere it is 0, not 0 / 0
LEAST_VARIANCE = 1e-6

# keeps the logarithm of a perfect correlation finite
MOST_CORRELATION = 0.999
