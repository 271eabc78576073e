"""Is a data set fit to be trained on? Each check measures something, and says what to do about it."""
