"""The command line: parse, build, call one method, print."""
