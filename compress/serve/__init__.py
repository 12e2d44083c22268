"""A shipped language model at work: opened once, it writes texts for commands and over HTTP."""
