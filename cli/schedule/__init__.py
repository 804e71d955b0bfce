"""`zwheel schedule`: one file for each kind of command; group has them all, options what they share."""
