"""From a trained run to files of other programs, and to one small file of its own."""
