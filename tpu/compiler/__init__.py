"""The compiler laboratory: compiles a training step for a slice you do not have, and analyses the program."""
