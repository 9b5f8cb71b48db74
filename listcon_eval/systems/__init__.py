"""The kinds of system that can be measured, each in a file of its own: something with a name that scores lists."""
