"""The commands of the command line, one file each: the arguments it takes, and what it does with them."""
